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
				MeasureMeanPowerW: ratio(2, 600), MeasureEnergyJ: ratio(3, 180)}
			row.Key = sinks.Key{RunID: fmt.Sprintf("%s/p%03d-r%d", execution, p, r), Execution: execution, Sweep: "s", Model: "m",
				Synthetic: true}
			row.BatchSize = int64(p + 1)
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
	seeds := uint64(20) // the bar: at most one alarm in a hundred
	if *power {
		seeds = 100
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

// What an execution has not got to yet, or was stopped in, is no regression.
func TestCompareUnfinished(t *testing.T) {
	base, fresh := nightOf("a", 6, 2, 1), nightOf("b", 6, 2, 2)
	fresh[8].Outcome, fresh[9].Outcome = "interrupted", "interrupted" // p004
	fresh[6].Outcome = "interrupted"                                  // one of two of p003
	for i, o := range []Options{{Unfinished: []string{"b"}}, {}} {
		c, err := Run("a", base, "b", fresh[:10], o)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.NewFailures) != 0 || len(c.Vanished) != i || len(c.Unfinished) != 2-i || c.Matched != 4 || c.Regressed() != (i == 1) {
			t.Errorf("%+v: %d fail, %d vanished, %d unfinished, %d matched", o, len(c.NewFailures), len(c.Vanished), len(c.Unfinished), c.Matched)
		}
	}
}

// An execution says nothing about itself; what stands on both sides is new.
func TestCompareWithItself(t *testing.T) {
	base, fresh := nightOf("a", 3, 1, 1), nightOf("b", 3, 1, 2)
	if _, err := Run("a", base, "a", base, Options{}); !errors.Is(err, ErrSame) {
		t.Errorf("itself: %v, want ErrSame", err)
	}
	c, err := Run("all", slices.Concat(base, fresh), "b", fresh, Options{})
	if err != nil || !slices.Equal(c.Base.Executions, []string{"a"}) {
		t.Errorf("a folder and its last execution: %v, base %+v", err, c)
	}
}

// A remainder that changed alone is no regression; with a part it is one. What says the same stands once.
func TestCompareRemainders(t *testing.T) {
	base, fresh := nightOf("a", 1, 1, 1), nightOf("b", 1, 1, 1)
	fresh[0].FrameworkOverheadBytes = new(*base[0].FrameworkOverheadBytes + frame.GiB)
	c, err := Run("a", base, "b", fresh, Options{})
	if err != nil || len(c.Alone) != 1 || c.Regressed() {
		t.Fatalf("%v; %d alone, regressed %v: want one alone, and no regression", err, len(c.Alone), c.Regressed())
	}
	fresh[0].PeakMemoryBytes, fresh[0].NetIncreaseBytes = new(*base[0].PeakMemoryBytes+frame.GiB), new(*base[0].NetIncreaseBytes+frame.GiB)
	c, err = Run("a", base, "b", fresh, Options{})
	if err != nil || len(c.Alone) != 0 || len(c.Regressions) != 2 || !slices.Equal(c.Regressions[0].Also, []string{"net_increase_bytes"}) {
		t.Errorf("%v; %+v: want peak, with net beside it, and the remainder", err, c.Regressions)
	}
}

// The log prints 0.01 GiB: where nothing else differs the interval is not of no width.
func TestCompareRounding(t *testing.T) {
	base, fresh := nightOf("a", 4, 3, 1), nightOf("b", 4, 3, 1)
	for i := range base {
		base[i].ModelWeightsBytes, fresh[i].ModelWeightsBytes = new(int64(15*frame.GiB)), new(int64(15*frame.GiB+frame.GiB/100))
	}
	c, err := Run("a", base, "b", fresh, Options{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range c.All {
		if one.Figure == "model_weights_bytes" && one.Profile != "" && (*one.Low > 3*frame.MiB || *one.High < 17*frame.MiB || *one.Q < 0.001) {
			t.Errorf("a last digit apart: %v .. %v, q %v", *one.Low, *one.High, *one.Q)
		}
	}
}

// Earlier executions say how far executions drift; those of another version do not.
func TestCompareHistory(t *testing.T) {
	w := world{profiles: 6, repeats: 3, memory: frame.MiB, ratio: 0.003, shared: 0.05, random: rand.New(rand.NewPCG(1, 5))}
	base := w.night("n9")
	var past []sinks.RunRow
	for i := range 8 {
		past = append(past, w.night(fmt.Sprintf("n%d", i))...)
	}
	w.shared, w.random = 0, rand.New(rand.NewPCG(2, 5))
	fresh := w.night("n10")
	for i := range fresh { // a night of its own: 8 % slower
		fresh[i].AvgLatencyS = new(1.08 * *base[i].AvgLatencyS)
	}
	slow := func(o Options) (called bool, noise Noise) {
		c, err := Run("n9", base, "n10", fresh, o)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(c.Regressions, func(x Change) bool { return x.Figure == "avg_latency_s" }), c.Noise
	}
	if called, noise := slow(Options{}); !called || noise != NoiseRepeats {
		t.Errorf("without history: called %v by %q", called, noise)
	}
	if called, noise := slow(Options{History: past}); called || noise != NoiseExecutions {
		t.Errorf("with nights that drift by 5 %%: called %v by %q", called, noise)
	}
	if called, noise := slow(Options{History: slices.Concat(base, fresh, base)}); !called || noise != NoiseRepeats {
		t.Errorf("with the sides as history: called %v by %q", called, noise)
	}
	for i := range past {
		past[i].VLLMVersion = new("0.1")
	}
	if called, noise := slow(Options{History: past}); !called || noise != NoiseRepeats {
		t.Errorf("with nights of another version: called %v by %q", called, noise)
	}
}
