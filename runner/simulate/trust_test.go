package simulate

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/compare"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// trust is how many runs the experiments of this file make, of each kind.
var trust = flag.Int("trust", 60, "simulated runs whose figures are held against the truth")

// page is what the driver rounds to.
const page = 2 << 20

// randomProfile is a profile that somebody may try: of a model, version, number of
// GPUs, share of the memory and speed of the simulator by chance, a third of them bound
// to fail.
func randomProfile(t testing.TB, rng *rand.Rand, i int, scale float64) *sweep.Profile {
	t.Helper()
	names := []string{"Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-32B", "microsoft/phi-4",
		"mistralai/Mistral-7B-Instruct-v0.3", "Qwen/Qwen3-30B-A3B"}
	return testProfile(t, func(p *sweep.Profile) {
		name := names[rng.IntN(len(names))]
		p.ID, p.Model, p.Settings.Model, p.Settings.HFModelID = fmt.Sprintf("p%05d", i), catalogued(name), name, name
		p.Engine.VLLMVersion = []string{"0.26.0", "0.33.0"}[rng.IntN(2)]
		p.Engine.Simulator.Seed, p.Engine.Simulator.TimeScale = rng.Int64N(1000), scale
		s := &p.Settings
		s.TensorParallelSize = []int64{1, 1, 2, 4}[rng.IntN(4)]
		s.BatchSize, s.InputLen = 1<<rng.IntN(7), []int64{128, 512, 2048, 6000}[rng.IntN(4)]
		iters := []int64{5, 10, 30}[rng.IntN(3)]
		s.NumIters = &iters
		eager := rng.IntN(5) == 0
		s.EnforceEager = &eager
		util := math.Round((0.7+0.29*rng.Float64())*100) / 100
		s.GPUMemoryUtilization = &util
		switch rng.IntN(9) {
		case 0:
			at := []any{"load", "profile", "kv_alloc", "capture", "engine_warmup", "bench_warmup", "measure"}[rng.IntN(7)]
			p.Engine.Simulator.Plant = map[string]any{"chaos": map[string]any{"do": "fail_oom", "at": at}}
		case 1:
			*s.GPUMemoryUtilization = 0.05
		}
	})
}

// catalogued is a model of the catalogue.
func catalogued(name string) *models.Architecture {
	catalogue, err := models.Builtin()
	if err != nil {
		return nil
	}
	a, _ := catalogue.Lookup(name)
	return a
}

// A judge holds what runs say against what was simulated.
type judge struct {
	wrong          []string
	figures, nulls int            // of the runs table
	steps, noSteps int            // of runs that ended well
	missing        map[string]int // by name, of nulls
	quality        map[string]int
	proved         int // safe values
}

// figure takes one figure: what it says, how far it may be off, and the truth.
func (j *judge) figure(h *rehearsal, name string, got *int64, off, truth int64) {
	if got == nil {
		return
	}
	if d := *got - truth; max(d, -d) > off {
		j.wrong = append(j.wrong, fmt.Sprintf("%s: %s is %.1f MiB, it may be off by %.1f, and the truth is %.1f (%s %s)", h.name(), name,
			float64(*got)/(1<<20), float64(off)/(1<<20), float64(truth)/(1<<20), h.result.Run.Outcome, h.result.Run.Quality))
	}
}

func (h *rehearsal) name() string {
	b := &h.result.BenchmarkParameters
	s := h.result.MemoryTimeline
	interval := 0.0
	if s != nil {
		interval = s.IntervalMS.Asked
	}
	return fmt.Sprintf("%s %s tp%d util %.2f eager %v, vLLM %s, every %.0f ms", h.result.Run.ProfileID, h.result.ModelInfo.Model, b.TensorParallelSize,
		*b.GPUMemoryUtilization, *b.EnforceEager, h.script.figuresVersion(), interval)
}

func (s *script) figuresVersion() string {
	if s.figures == nil {
		return "?"
	}
	return s.figures.words.version
}

// highest is the most that all ranks, and that each, came to hold.
func (h *rehearsal) highest() (sum int64, each []int64) {
	each = make([]int64, len(h.levels))
	for rank, changes := range h.levels {
		for _, c := range changes {
			each[rank] = max(each[rank], c.bytes)
		}
	}
	for _, c := range h.levels[0] {
		var all int64
		for rank := range h.levels {
			all += h.at(rank, c.at).bytes
		}
		sum = max(sum, all)
	}
	return sum, each
}

// truths are the steps of a rank as they were simulated.
func (h *rehearsal) truths(rank int) map[string]int64 {
	f := h.script.figures
	m := &f.memory[rank]
	out := map[string]int64{"load": m.loaded() - m.context, "buffers": 0, "profile_peak": m.activation, "kv_alloc": m.kv,
		"estimate_capture": m.graphEst, "kernel_warmup": m.retaken, "capture": m.graphs, "engine_warmup": m.kept,
		"bench_warmup": m.requests, "measure": 0, "left_after": 0, "context": m.context}
	if f.ranks > 1 {
		out["context"] = m.context / 3
		out["nccl"] = m.context - m.context/3
	}
	if h.script.request.kvBytes != nil {
		delete(out, "profile_peak")
	}
	return out
}

// past are the steps that a failed run had behind it.
func (h *rehearsal) past(step string) bool {
	of := map[string]runner.Phase{"context": runner.PhaseEngineInit, "nccl": runner.PhaseEngineInit, "load": runner.PhaseLoad,
		"buffers": runner.PhaseLoad, "profile_peak": runner.PhaseProfile, "estimate_capture": runner.PhaseProfile, "kv_alloc": runner.PhaseKVAlloc,
		"kernel_warmup": runner.PhaseEngineWarmup, "capture": runner.PhaseCapture, "engine_warmup": runner.PhaseEngineWarmup,
		"bench_warmup": runner.PhaseBenchWarmup, "measure": runner.PhaseMeasure}[step]
	_, reached := h.script.phases[of]
	return h.failed == "" || of == "" || reached && of != h.failed
}

// run judges one run.
func (j *judge) run(h *rehearsal) {
	r := h.result
	j.quality[string(r.Run.Quality)]++
	for _, s := range r.Steps {
		if s.Bytes == nil {
			continue
		}
		truth, known := h.truths(int(s.GPUIndex))[s.Step]
		if !known || !h.past(s.Step) {
			continue
		}
		off := int64(page)
		if s.UncertaintyB != nil {
			off += *s.UncertaintyB
		}
		if s.LowerBound != nil && *s.LowerBound && *s.Bytes <= truth+off {
			continue
		}
		j.figure(h, fmt.Sprintf("step %s of GPU %d", s.Step, s.GPUIndex), s.Bytes, off, truth)
	}
	row := sinks.RowsOf(r).Run
	j.parts(h, &row)
	sum, each := h.highest()
	lower := row.PeakLowerBound != nil && *row.PeakLowerBound
	if row.PeakMemoryBytes != nil && (!lower || *row.PeakMemoryBytes > sum) {
		j.figure(h, "peak_memory_bytes", row.PeakMemoryBytes, int64(page*len(each)), sum)
	}
	if h.failed != "" {
		return
	}
	for name, v := range map[string]*int64{"peak_memory_bytes": row.PeakMemoryBytes, "net_increase_bytes": row.NetIncreaseBytes,
		"model_weights_bytes": row.ModelWeightsBytes, "kv_cache_bytes": row.KVCacheBytes, "activations_bytes": row.ActivationsBytes,
		"cuda_graphs_bytes": row.CUDAGraphsBytes, "non_torch_bytes": row.NonTorchBytes, "context_bytes": row.ContextBytes,
		"growth_excess_bytes": row.GrowthExcessBytes, "framework_overhead_bytes": row.FrameworkOverheadBytes,
		"beyond_budget_gross_bytes": row.BeyondBudgetGrossBytes} {
		j.figures++
		if v == nil {
			j.nulls++
			j.missing[name]++
		}
	}
	for _, s := range r.Steps {
		j.steps++
		if s.Bytes == nil {
			j.noSteps++
			j.missing["step "+s.Step]++
		}
	}
}

// parts judges the parts of the net increase by the definitions of the attribution,
// on what was simulated: what a run says of itself that it may be off by.
func (j *judge) parts(h *rehearsal, row *sinks.RunRow) {
	b := h.result.MemoryBreakdown
	if b == nil || h.failed != "" {
		return
	}
	f := h.script.figures
	early := b.PeakPhase.Order() < runner.PhaseCapture.Order()
	least := slices.MinFunc(f.memory, func(a, b rankMemory) int { return cmp.Compare(a.available, b.available) }).available
	var tops []int64
	for i := range f.memory {
		tops = append(tops, h.at(i, b.PeakAt.Sub(h.result.Run.StartedAt)).bytes)
	}
	var act, growth, rest int64
	gross := int64(math.MinInt64)
	for i := range f.memory {
		m := f.memory[i]
		held := m.buffers
		if f.words.v33 {
			held = 0
		}
		if early {
			m.graphs, held, m.graphEst = 0, held-m.graphEst, 0
		}
		room := tops[i] - m.context - (m.graphs - m.graphEst) - (f.requested - m.activation)
		excess := max(0, room-m.activation)
		used := max(0, min(room, m.activation)-held-(m.kv-least))
		act, growth = act+used, growth+excess
		rest += tops[i] - (m.weights + least + m.graphs + m.nonTorch + m.context + m.buffers) - used - excess
		gross = max(gross, tops[i]-f.requested)
	}
	off := func(p *int64) int64 {
		if p == nil {
			return 0
		}
		return *p
	}
	j.figure(h, "activations_bytes", row.ActivationsBytes, off(row.ActivationsOffBytes), act)
	j.figure(h, "growth_excess_bytes", row.GrowthExcessBytes, off(row.GrowthOffBytes), growth)
	j.figure(h, "framework_overhead_bytes", row.FrameworkOverheadBytes, off(row.FrameworkOffBytes), rest)
	j.figure(h, "beyond_budget_gross_bytes", row.BeyondBudgetGrossBytes, off(row.GrossOffBytes), gross)
	j.proof(h)
}

// proof runs the profile again at what its run proved safe: it must not run out of
// memory there.
func (j *judge) proof(h *rehearsal) {
	for _, b := range h.result.BeyondBudget {
		if b.SafeUtilization == nil {
			continue
		}
		j.proved++
		for name, change := range map[string]func(*request){
			"--gpu-memory-utilization": func(r *request) { r.util = b.SafeUtilization },
			"--kv-cache-memory-bytes":  func(r *request) { r.kvBytes = b.SafeKVCacheMemoryBytes },
		} {
			again := *h.script.request
			change(&again)
			if s := scriptOf(h.config, &again, nil, nil); s.fail != nil {
				j.wrong = append(j.wrong, fmt.Sprintf("%s: %s is proved safe (%s), and then: %s", h.name(), name, b.Sentence, s.fail.line()))
			}
		}
	}
}

func (j *judge) report(t *testing.T, runs int) {
	t.Helper()
	t.Logf("%d runs (%v), %d safe values; of those that ended well %d figures, %d null (%.2f %%), %d steps, %d null (%.2f %%); nulls by name %v",
		runs, j.quality, j.proved, j.figures, j.nulls, 100*float64(j.nulls)/float64(max(j.figures, 1)), j.steps, j.noSteps,
		100*float64(j.noSteps)/float64(max(j.steps, 1)), j.missing)
	if len(j.wrong) > 0 {
		slices.Sort(j.wrong)
		t.Errorf("%d figures are wrong by more than they say:\n%s", len(j.wrong), strings.Join(j.wrong[:min(len(j.wrong), 40)], "\n"))
	}
}

// TestNoClaimBeyondWhatWasSeen: whatever is sampled how often, no figure is wrong by
// more than it says.
func TestNoClaimBeyondWhatWasSeen(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 1))
	j := &judge{missing: map[string]int{}, quality: map[string]int{}}
	for i := range *trust {
		scale := 30 * math.Pow(1000.0/30, rng.Float64())
		interval := time.Duration(10 * math.Pow(200, rng.Float64()) * float64(time.Millisecond))
		j.run(rehearse(t, randomProfile(t, rng, i, scale), "e", interval, rng))
	}
	j.report(t, *trust)
}

// TestFewNulls: at the default interval little is null.
func TestFewNulls(t *testing.T) {
	for name, scale := range map[string]float64{"as vLLM": 1, "default": 0} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(19, 2))
			j := &judge{missing: map[string]int{}, quality: map[string]int{}}
			for i := range *trust {
				j.run(rehearse(t, randomProfile(t, rng, i, scale), "e", 100*time.Millisecond, rng))
			}
			j.report(t, *trust)
		})
	}
}

// eight are the profiles of a nightly sweep.
func eight(t testing.TB, scale float64, plant map[string]any) (all []*sweep.Profile) {
	t.Helper()
	for i, name := range []string{"Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B-Instruct"} {
		for _, tp := range []int64{1, 2} {
			for _, batch := range []int64{8, 32} {
				all = append(all, testProfile(t, func(p *sweep.Profile) {
					p.ID, p.Model, p.Settings.Model, p.Settings.HFModelID = fmt.Sprintf("p%d%d%02d", i, tp, batch), catalogued(name), name, name
					p.Settings.TensorParallelSize, p.Settings.BatchSize = tp, batch
					p.Engine.Simulator.TimeScale, p.Engine.Simulator.Plant = scale, plant
				}))
			}
		}
	}
	return all
}

// execution runs profiles once each.
func execution(t testing.TB, id string, all []*sweep.Profile, interval time.Duration, rng *rand.Rand) (rows []sinks.RunRow) {
	t.Helper()
	for _, p := range all {
		rows = append(rows, sinks.RowsOf(rehearse(t, p, id, interval, rng).result).Run)
	}
	return rows
}

// TestUnchangedExecutions: of pairs in which nothing changed one in a hundred may be
// called a regression, however they were sampled.
func TestUnchangedExecutions(t *testing.T) {
	rng, pairs := rand.New(rand.NewPCG(19, 3)), max(*trust/10, 1)
	called, compared, blind := 0, 0, 0
	for i := 0; compared < pairs && i < 10*pairs; i++ {
		scale := 30 * math.Pow(1000.0/30, rng.Float64())
		interval := time.Duration(10 * math.Pow(200, rng.Float64()) * float64(time.Millisecond))
		if i%4 == 0 {
			scale = 0
		}
		all := eight(t, scale, nil)
		base, fresh := execution(t, "a", all, interval, rng), execution(t, "b", all, interval, rng)
		c, err := compare.Run("a", base, "b", fresh, compare.Options{})
		if errors.Is(err, compare.ErrBlind) {
			blind++ // nothing can be called of it: another pair
			continue
		}
		compared++
		if err != nil {
			t.Fatal(err)
		}
		if c.Regressed() {
			called++
			for _, r := range c.Regressions {
				t.Logf("pair %d, every %v, time_scale %.0f: %s of %s: %.1f MiB, now %.1f (%v)", i, interval, scale, r.Figure, r.Label,
					r.Base/(1<<20), r.New/(1<<20), r.Note)
			}
			t.Logf("pair %d: %d new failures, %d vanished", i, len(c.NewFailures), len(c.Vanished))
		}
	}
	t.Logf("%d of %d pairs of unchanged executions are called a regression; %d more are blind", called, pairs, blind)
	if compared < pairs {
		t.Errorf("%d pairs could be compared, %d are wanted", compared, pairs)
	}
	if called > 1+pairs/100 {
		t.Errorf("%d of %d pairs of unchanged executions are called a regression, at most 1 in 100 may be", called, pairs)
	}
}

// TestPlantedChange: 200 MiB more of a component are found with one run a side.
func TestPlantedChange(t *testing.T) {
	rng, found, pairs := rand.New(rand.NewPCG(19, 4)), 0, max(*trust/10, 1)
	components := []string{"weights", "activations", "non_torch", "cuda_graphs", "context", "buffers", "growth"}
	missed := map[string]int{}
	for i := range pairs {
		component := components[i%len(components)]
		plant := map[string]any{"component": component, "bytes": "200MiB"}
		base := execution(t, "a", eight(t, 0, nil), 100*time.Millisecond, rng)
		fresh := execution(t, "b", eight(t, 0, plant), 100*time.Millisecond, rng)
		c, err := compare.Run("a", base, "b", fresh, compare.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if c.Regressed() {
			found++
		} else {
			missed[component]++
		}
	}
	t.Logf("200 MiB more are found in %d of %d pairs; missed %v", found, pairs, missed)
	if found < pairs*95/100 {
		t.Errorf("200 MiB more are found in %d of %d pairs, expected 95 of 100; missed %v", found, pairs, missed)
	}
}

// TestSameSeedSeenAgain: the same seed gives the same figures, to what they say that they
// may be off by, also of a run that fails.
func TestSameSeedSeenAgain(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 5))
	differ, failures := 0, 0
	for i := range *trust / 2 {
		p := randomProfile(t, rng, i, 30*math.Pow(1000.0/30, rng.Float64()))
		interval := time.Duration(10 * math.Pow(200, rng.Float64()) * float64(time.Millisecond))
		a, b := rehearse(t, p, "a", interval, rng), rehearse(t, p, "b", interval, rng)
		x, y := sinks.RowsOf(a.result).Run, sinks.RowsOf(b.result).Run
		if a.failed != "" {
			failures++
		}
		if x.Outcome != y.Outcome {
			t.Errorf("%s: %s, then %s", a.name(), x.Outcome, y.Outcome)
		}
		for name, of := range map[string]func(*sinks.RunRow) (v, off *int64){
			"peak_memory_bytes":   func(r *sinks.RunRow) (v, off *int64) { return r.PeakMemoryBytes, r.PeakOffBytes },
			"growth_excess_bytes": func(r *sinks.RunRow) (v, off *int64) { return r.GrowthExcessBytes, r.GrowthOffBytes },
			"framework_overhead_bytes": func(r *sinks.RunRow) (v, off *int64) {
				return r.FrameworkOverheadBytes, r.FrameworkOffBytes
			},
		} {
			v, off := of(&x)
			w, woff := of(&y)
			if v == nil || w == nil {
				if (v == nil) != (w == nil) && a.failed != "" && name == "peak_memory_bytes" {
					differ++
				}
				continue
			}
			if d := *v - *w; max(d, -d) > *off+*woff {
				t.Errorf("%s (%s): %s is %.1f MiB, then %.1f", a.name(), x.Outcome, name, float64(*v)/(1<<20), float64(*w)/(1<<20))
			}
		}
	}
	t.Logf("%d failed runs, %d of them with a highest use in one of two executions alone", failures, differ)
}
