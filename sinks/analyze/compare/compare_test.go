package compare

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// nightOf makes an execution of n profiles with repeats: 30 MiB of noise on
// memory, 1 % on latency. Profiles in plant use 200 MiB more.
func nightOf(execution string, n, repeats int, seed uint64, plant ...int) []sinks.RunRow {
	w := world{profiles: n, repeats: repeats, memory: 30 * frame.MiB, ratio: 0.01, random: rand.New(rand.NewPCG(seed, 1))}
	if len(plant) > 0 {
		w.more = func(p int) float64 { return map[bool]float64{true: 200 * frame.MiB}[slices.Contains(plant, p)] }
	}
	return w.night(execution)
}

// A world makes executions whose noise is known.
type world struct {
	profiles, repeats int
	memory            float64             // bytes, standard deviation of a run
	ratio             float64             // of latency, power and energy
	shared, own       float64             // drift of an execution: of all profiles, of each
	more              func(p int) float64 // bytes planted
	slower            func(p int) float64 // share planted on the latency
	random            *rand.Rand
}

func (w *world) night(execution string) []sinks.RunRow {
	const gib = frame.GiB
	var rows []sinks.RunRow
	drift := func(by float64) float64 { return 1 + by*w.random.NormFloat64() }
	all := [5]float64{drift(w.shared), drift(w.shared), drift(w.shared), drift(w.shared), drift(w.shared)}
	for p := range w.profiles {
		own := [5]float64{}
		for i := range own {
			own[i] = all[i] * drift(w.own)
		}
		extra, slow := 0.0, 1.0
		if w.more != nil {
			extra = w.more(p)
		}
		if w.slower != nil {
			slow += w.slower(p)
		}
		for r := range w.repeats {
			bytes := func(base float64) *int64 { return new(int64(base*own[0] + w.memory*w.random.NormFloat64())) }
			ratio := func(i int, base float64) *float64 {
				return new(base * own[i] * math.Exp(w.ratio*w.random.NormFloat64()))
			}
			latency := ratio(1, 0.3*slow)
			row := sinks.RunRow{ProfileID: fmt.Sprintf("p%03d", p), Repeat: int32(r + 1), Outcome: "ok",
				PeakMemoryBytes: bytes(74*gib + extra), NetIncreaseBytes: bytes(74*gib + extra),
				ModelWeightsBytes: bytes(15 * gib), KVCacheBytes: bytes(56 * gib), ActivationsReservedBytes: bytes(2 * gib),
				CUDAGraphsBytes: bytes(gib), NonTorchBytes: bytes(gib / 4), ContextBytes: bytes(gib / 2),
				GrowthExcessBytes: bytes(0), FrameworkOverheadBytes: bytes(gib / 10), BeyondBudgetGrossBytes: bytes(gib + extra),
				KVCacheTokens: new(int64(457504)), AvgLatencyS: latency, OutputTokensPerS: new(8 * 32 / *latency),
				MeanPowerW: ratio(2, 600), EnergyJ: ratio(3, 180)}
			row.Key = sinks.Key{RunID: fmt.Sprintf("%s/p%03d-r%d", execution, p, r), Execution: execution, Sweep: "s", Model: "m",
				Synthetic: true}
			row.BatchSize = new(int64(p + 1))
			rows = append(rows, row)
		}
	}
	return rows
}

func TestComparePlanted(t *testing.T) {
	base := nightOf("a", 400, 3, 1)
	fresh := nightOf("b", 400, 3, 2, 7, 123, 399)
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
		c, err := Run("a", nightOf("a", 400, 3, 1000+seed), "b", nightOf("b", 400, 3, 5000+seed), Options{})
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
	base := nightOf("a", 3, 1, 1)
	real := nightOf("b", 3, 1, 2)
	for i := range real {
		real[i].Synthetic = false
	}
	if _, err := Run("a", base, "b", real, Options{}); !errors.Is(err, frame.ErrMixed) {
		t.Errorf("synthetic against measured: %v, want frame.ErrMixed", err)
	}
	other := nightOf("b", 3, 1, 2)
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
	base, fresh := nightOf("a", 1, 1, 1), nightOf("b", 1, 1, 1)
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
	base, fresh := nightOf("a", 4, 1, 1), nightOf("b", 4, 1, 1)
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
