package compare

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"testing"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// night makes an execution of n profiles with repeats: 30 MiB of noise on
// memory, 1 % on latency. Profiles in plant use 200 MiB more.
func night(execution string, n, repeats int, seed uint64, plant ...int) []sinks.RunRow {
	random := rand.New(rand.NewPCG(seed, 1))
	var rows []sinks.RunRow
	for p := range n {
		for r := range repeats {
			noise := func(base int64) *int64 { v := base + int64(random.NormFloat64()*30*frame.MiB); return &v }
			extra := int64(0)
			for _, planted := range plant {
				if planted == p {
					extra = 200 * frame.MiB
				}
			}
			gib := int64(frame.GiB)
			latency := 0.3 * (1 + 0.01*random.NormFloat64())
			rate, power, energy := 8*32/latency, 600*(1+0.01*random.NormFloat64()), 180*(1+0.01*random.NormFloat64())
			tokens := int64(457504)
			batch := int64(p + 1)
			row := sinks.RunRow{ProfileID: fmt.Sprintf("p%03d", p), Repeat: int32(r + 1), Outcome: "ok",
				PeakMemoryBytes: noise(74*gib + extra), NetIncreaseBytes: noise(74*gib + extra),
				ModelWeightsBytes: noise(15 * gib), KVCacheBytes: noise(56 * gib), ActivationsReservedBytes: noise(2 * gib),
				CUDAGraphsBytes: noise(gib), NonTorchBytes: noise(gib / 4), ContextBytes: noise(gib / 2),
				GrowthExcessBytes: noise(0), FrameworkOverheadBytes: noise(gib / 10), BeyondBudgetGrossBytes: noise(gib + extra),
				KVCacheTokens: &tokens, AvgLatencyS: &latency, OutputTokensPerS: &rate, MeanPowerW: &power, EnergyJ: &energy}
			row.Key = sinks.Key{RunID: fmt.Sprintf("%s/p%03d-r%d", execution, p, r), Execution: execution, Sweep: "s", Model: "m",
				Synthetic: true}
			row.BatchSize = batch
			rows = append(rows, row)
		}
	}
	return rows
}

func TestComparePlanted(t *testing.T) {
	base := night("a", 400, 3, 1)
	fresh := night("b", 400, 3, 2, 7, 123, 399)
	c, err := Run("a", base, "b", fresh, Options{})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, change := range c.Regressions {
		found[change.Profile] = true
	}
	if len(found) != 3 || !found["p007"] || !found["p123"] || !found["p399"] {
		t.Errorf("profiles with a regression: %v; planted were p007, p123, p399", found)
	}
	if len(c.Gains) != 0 {
		t.Errorf("%d improvements where none was planted: %+v", len(c.Gains), c.Gains[0])
	}
	if c.Matched != 400 {
		t.Errorf("matched %d profiles of 400", c.Matched)
	}
}

func TestCompareFalseAlarms(t *testing.T) {
	seeds := uint64(100) // the bar: at most one alarm in these
	if testing.Short() {
		seeds = 10
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // the rows of a night are soon gone
	alarms := 0
	for seed := range seeds {
		c, err := Run("a", night("a", 400, 3, 1000+seed), "b", night("b", 400, 3, 5000+seed), Options{})
		if err != nil {
			t.Fatal(err)
		}
		alarms += len(c.Regressions) + len(c.Gains)
	}
	if alarms > 1 {
		t.Errorf("%d false alarms in %d comparisons of equal nights; at most 1 is allowed", alarms, seeds)
	}
}

func TestCompareRefusals(t *testing.T) {
	base := night("a", 3, 1, 1)
	real := night("b", 3, 1, 2)
	for i := range real {
		real[i].Synthetic = false
	}
	if _, err := Run("a", base, "b", real, Options{}); !errors.Is(err, frame.ErrMixed) {
		t.Errorf("synthetic against measured: %v, want frame.ErrMixed", err)
	}
	other := night("b", 3, 1, 2)
	for i := range other {
		other[i].ProfileID = "q" + other[i].ProfileID
	}
	if _, err := Run("a", base, "b", other, Options{}); !errors.Is(err, ErrNothing) {
		t.Errorf("no common profile: %v, want ErrNothing", err)
	}
	if _, err := Run("a", base, "b", base, Options{Across: []string{"nonsense"}}); err == nil {
		t.Error("--across nonsense was accepted")
	}
}

func TestCompareDummyWeights(t *testing.T) {
	base, fresh := night("a", 1, 1, 1), night("b", 1, 1, 1)
	dummy := "dummy"
	for i := range fresh {
		fresh[i].LoadFormat = &dummy
		slow := *fresh[i].AvgLatencyS * 3
		fresh[i].AvgLatencyS = &slow
	}
	c, err := Run("a", base, "b", fresh, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range c.Regressions {
		if change.Figure == "avg_latency_s" {
			t.Error("the latency of random weights was compared with that of real ones")
		}
	}
}

func TestCompareOutcomes(t *testing.T) {
	base, fresh := night("a", 4, 1, 1), night("b", 4, 1, 1)
	fresh[0].Outcome = "oom"
	base[1].Outcome = "timeout"
	c, err := Run("a", base, "b", fresh[:3], Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.NewFailures) != 1 || len(c.Recovered) != 1 || len(c.Vanished) != 1 {
		t.Errorf("new failures %d, recovered %d, vanished %d; want one each", len(c.NewFailures), len(c.Recovered), len(c.Vanished))
	}
	if !c.Regressed() {
		t.Error("a new failure and a vanished profile are no regression")
	}
}
