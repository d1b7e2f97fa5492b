package runner

import (
	"context"
	"fmt"
	"testing"

	"github.com/vramsweep/vramsweep/sweep"
)

func ptr[T any](v T) *T { return &v }

// base is a profile; changes are applied to its copy.
func base(change ...func(*sweep.Profile)) *sweep.Profile {
	p := &sweep.Profile{
		ID: "base", Sweep: "s", Engine: sweep.Engine{Kind: "vllm", Mode: "latency"},
		Settings: sweep.Settings{
			Model: "m", HFModelID: "o/m", Asked: sweep.Asked{
				Dtype: ptr("bfloat16"), KVCacheDtype: ptr("auto"), TensorParallelSize: 2, PipelineParallelSize: 1,
				InputLen: 1024, OutputLen: 128, BatchSize: 8, MaxModelLen: ptr(int64(4096)), MaxNumSeqs: ptr(int64(64)),
				GPUMemoryUtilization: ptr(0.9),
			},
		},
	}
	for i, c := range change {
		c(p)
		p.ID = fmt.Sprintf("changed-%d", i)
	}
	return p
}

func set(f func(s *sweep.Settings)) func(*sweep.Profile) {
	return func(p *sweep.Profile) { f(&p.Settings) }
}

func TestDominated(t *testing.T) {
	type profile = sweep.Profile
	changes := map[string]func(*profile){
		"the same, other iterations": set(func(s *sweep.Settings) { s.NumIters = ptr(int64(3)) }),
		"larger dtype":               set(func(s *sweep.Settings) { s.Dtype = ptr("float32") }),
		"unknown dtype":              set(func(s *sweep.Settings) { s.Dtype = ptr("auto") }),
		"fewer GPUs":                 set(func(s *sweep.Settings) { s.TensorParallelSize = 1 }),
		"more GPUs":                  set(func(s *sweep.Settings) { s.TensorParallelSize = 4 }),
		"larger batch":               set(func(s *sweep.Settings) { s.BatchSize = 16 }),
		"smaller batch":              set(func(s *sweep.Settings) { s.BatchSize = 4 }),
		"longer input":               set(func(s *sweep.Settings) { s.InputLen = 2048 }),
		"shorter output":             set(func(s *sweep.Settings) { s.OutputLen = 64 }),
		"longer context":             set(func(s *sweep.Settings) { s.MaxModelLen = ptr(int64(8192)) }),
		"shorter context":            set(func(s *sweep.Settings) { s.MaxModelLen = ptr(int64(2048)) }),
		"context left to vLLM":       set(func(s *sweep.Settings) { s.MaxModelLen = nil }),
		"fp8 KV":                     set(func(s *sweep.Settings) { s.KVCacheDtype = ptr("fp8") }),
		"lower utilization":          set(func(s *sweep.Settings) { s.GPUMemoryUtilization = ptr(0.8) }),
		"higher utilization":         set(func(s *sweep.Settings) { s.GPUMemoryUtilization = ptr(0.95) }),
		"eager":                      set(func(s *sweep.Settings) { s.EnforceEager = ptr(true) }),
		"another model":              set(func(s *sweep.Settings) { s.HFModelID = "o/larger" }),
		"quantized":                  set(func(s *sweep.Settings) { s.Quantization = ptr("awq") }),
		"another flag": func(p *profile) {
			p.Engine.Flags = []sweep.Flag{{Name: "cpu_offload_gb",
				Value: int64(4)}}
		},
	}
	oom := func(in Phase) RunInfo { return RunInfo{Outcome: OutcomeOOM, FailedIn: in} }
	for name, c := range map[string]struct {
		run     RunInfo
		skipped []string
	}{
		"load": {oom(PhaseLoad), []string{"the same, other iterations", "larger dtype", "fewer GPUs", "larger batch",
			"smaller batch", "longer input", "shorter output",
			"longer context", "fp8 KV", "lower utilization", "higher utilization", "eager"}},
		"profile": {oom(PhaseProfile), []string{"the same, other iterations", "larger dtype", "fewer GPUs", "larger batch",
			"smaller batch", "longer input", "shorter output",
			"longer context", "fp8 KV", "lower utilization", "higher utilization"}},
		"no KV memory": {RunInfo{Outcome: OutcomeNoKVMemory},
			[]string{"the same, other iterations", "larger dtype", "fewer GPUs", "larger batch", "smaller batch",
				"longer input", "shorter output",
				"longer context", "fp8 KV", "lower utilization"}},
		"KV too small": {RunInfo{Outcome: OutcomeKVTooSmall},
			[]string{"the same, other iterations", "larger dtype", "fewer GPUs", "larger batch", "smaller batch",
				"longer input", "shorter output",
				"longer context", "lower utilization"}},
		"capture": {oom(PhaseCapture), []string{"the same, other iterations", "fewer GPUs", "larger batch", "smaller batch",
			"longer input", "shorter output", "longer context", "higher utilization"}},
		"measure": {oom(PhaseMeasure), []string{"the same, other iterations", "fewer GPUs", "larger batch", "longer input",
			"longer context", "higher utilization"}},
		"timeout": {RunInfo{Outcome: OutcomeTimeout}, nil},
		"error":   {RunInfo{Outcome: OutcomeEngineError, FailedIn: PhaseLoad}, nil},
		"ok":      {RunInfo{Outcome: OutcomeOK}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sweep.Sweep{Name: "s"}
			var r rules
			run := c.run
			run.RunID = "the-run"
			r.learn(s, base(), &Result{Run: run})
			if reason, _ := r.dominated(s, base()); reason != "" {
				t.Errorf("a repeat of the profile itself: %s", reason)
			}
			want := map[string]bool{}
			for _, n := range c.skipped {
				if changes[n] == nil {
					t.Fatalf("no change %q", n)
				}
				want[n] = true
			}
			for n, change := range changes {
				reason, by := r.dominated(s, base(change))
				if (reason != "") != want[n] || (reason != "" && by != "the-run") {
					t.Errorf("%s: skipped %v (%s), want %v", n, reason != "", reason, want[n])
				}
				if reason, _ := r.dominated(&sweep.Sweep{Name: "other"}, base(change)); reason != "" {
					t.Errorf("%s of another sweep: %s", n, reason)
				}
			}
		})
	}
}

func TestDominatedRowsNameTheRun(t *testing.T) {
	k := newKeeper()
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		if job.Profile.Settings.BatchSize >= 2 {
			return &Measurement{Outcome: OutcomeOOM, Events: []LogEvent{{Kind: EventMeasureStart}, {Kind: EventShutdown}}}, nil
		}
		return ok(ctx, job)
	}))
	sum := mustRun(t, r, plan(sweep.Limits{SkipDominated: true}, 1, 2, 4, 8), Options{})
	if sum.OK != 1 || sum.Failed != 1 || sum.Skipped != 2 || sum.Ran != 2 {
		t.Errorf("summary %+v", sum)
	}
	row := k.results[k.order[3]]
	if row.Run.SkippedBecause != k.order[1] || row.Missing["latency_stats"] == "" {
		t.Errorf("row %+v", row.Run)
	}

	// What a killed runner learned is learned again from its rows.
	k.results[k.order[3]].Run.Outcome = OutcomeInterrupted
	k.execs[0].State = StateRunning
	again := mustRun(t, r, plan(sweep.Limits{SkipDominated: true}, 1, 2, 4, 8), Options{Resume: true})
	if again.Skipped != 2 || again.Ran != 0 || again.Kept != 3 {
		t.Errorf("resumed: %+v", again)
	}
}
