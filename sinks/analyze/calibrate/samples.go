// Package calibrate measures what the arithmetic of memory cannot compute: it
// chooses the profiles whose runs say the most of one vLLM on one GPU, fits laws to
// finished runs, and checks them on runs that were not fitted.
//
// It runs nothing: the profiles are a sweep file, which `run` executes too.
package calibrate

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// Runs are the samples of an output folder.
type Runs struct {
	Fitted, Held []models.Sample // those that laws are fitted to, and those that they are checked on
	Synthetic    bool
	LeftOut      []string // what no sample was made of, and why: "2 runs: ended as oom"
}

// Read makes samples of the finished runs of a folder, each without the figures
// that were not measured. Runs of the sweeps that hold names are not fitted; where there are
// none, all are. It fails with frame.ErrMixed.
func Read(s *sinks.Store, hold []string, find func(*runner.Result) *models.Architecture) (*Runs, error) {
	out := &Runs{}
	left := map[string]int{}
	for rel, r := range s.Results(sinks.Predicate{}) {
		if r == nil {
			left[rel+" is damaged (vramsweep verify says how)"]++
			continue
		}
		sample, why := sampleOf(r, find)
		if why != "" {
			left[why]++
			continue
		}
		if len(out.Fitted)+len(out.Held) > 0 && out.Synthetic != r.Run.Synthetic {
			return nil, fmt.Errorf("%w: %s is not what the runs before it are", frame.ErrMixed, sample.RunID)
		}
		out.Synthetic = r.Run.Synthetic
		if slices.Contains(hold, r.Run.Sweep) {
			out.Held = append(out.Held, sample)
		} else {
			out.Fitted = append(out.Fitted, sample)
		}
	}
	for _, why := range frame.SortedKeys(left) {
		out.LeftOut = append(out.LeftOut, fmt.Sprintf("%d runs: %s", left[why], why))
	}
	byID := func(a, b models.Sample) int { return cmp.Compare(a.RunID, b.RunID) }
	slices.SortFunc(out.Fitted, byID)
	slices.SortFunc(out.Held, byID)
	return out, nil
}

// lacks says why no sample can be made of a run; "": it can.
func lacks(r *runner.Result) string {
	account := r.VLLMInternalMetrics
	switch {
	case r.Run.Outcome != runner.OutcomeOK:
		return "ended as " + string(r.Run.Outcome)
	case account == nil || len(account.Ranks) == 0:
		return "vLLM's log has no account of its memory"
	case len(account.Ranks) > 1:
		return "several ranks; laws are fitted to runs of one"
	case r.BenchmarkParameters.KVCacheMemoryBytes != nil:
		return "kv_cache_memory_bytes is set, so that vLLM keeps no budget"
	case len(r.GPUInfo) == 0:
		return "no GPU: on a CPU vLLM keeps no budget of memory"
	case account.ModelRunner == nil || *account.ModelRunner != "v2":
		return "not of the V2 model runner"
	}
	rank := &account.Ranks[0]
	for _, figure := range []struct {
		name string
		is   *float64
	}{{"consumed memory (0.27 or newer)", rank.ConsumedGB}, {"weights", rank.ModelWeightsGB},
		{"activations", rank.ActivationsGB},
		{"KV cache", rank.AvailableKVCacheGB}, {"total memory", rank.TotalGPUMemoryGB}, {"free memory", rank.FreeMemoryGB}} {
		if figure.is == nil {
			return "vLLM's log does not say its " + figure.name
		}
	}
	return ""
}

// sampleOf is a run's sample; why says what it lacks.
func sampleOf(r *runner.Result, find func(*runner.Result) *models.Architecture) (s models.Sample, why string) {
	if why := lacks(r); why != "" {
		return s, why
	}
	account := r.VLLMInternalMetrics
	rank := &account.Ranks[0]
	a := find(r)
	if a == nil {
		return s, "the architecture of " + r.ModelInfo.Model + " is not known (--configs names a folder with its config.json)"
	}
	bytes := func(gb *float64) float64 { return frame.Deref(gb) * runner.GiB }
	s = models.Sample{
		RunID: r.Run.RunID, Model: a.ID, Architecture: a, Request: requestOf(r),
		Torch:     frame.Deref(r.EngineMetadata.TorchVersion),
		Attention: frame.Deref(account.AttentionBackend), Context: bytes(rank.TotalGPUMemoryGB) - bytes(rank.FreeMemoryGB),
		Weights: bytes(rank.ModelWeightsGB), Consumed: bytes(rank.ConsumedGB), Activations: bytes(rank.ActivationsGB),
		KVCache: bytes(rank.AvailableKVCacheGB), KVTokens: float64(frame.Deref(account.TotalGPUKVCacheTokens)),
	}
	s.GPU = planner.DeviceGPU(&r.GPUInfo[0])
	if rank.GraphCaptureGB != nil && rank.GraphEstimateGB != nil {
		s.Graphs, s.Estimate = bytes(rank.GraphCaptureGB), bytes(rank.GraphEstimateGB)
	}
	if b := r.BeyondBudget; len(b) > 0 && b[0].GrowthExcessBytes != nil && b[0].HeadroomUnusedBytes != nil {
		use := s.Activations - float64(*b[0].HeadroomUnusedBytes) + float64(*b[0].GrowthExcessBytes)
		s.InUse = &use
	}
	return s, ""
}

// requestOf is a run as the arithmetic is asked for it.
func requestOf(r *runner.Result) models.Request {
	q := &r.BenchmarkParameters
	return models.Request{
		Dtype: frame.Deref(q.Dtype), KVCacheDtype: frame.Deref(q.KVCacheDtype), Quantization: frame.Deref(q.Quantization),
		TensorParallelSize: q.TensorParallelSize, PipelineParallelSize: q.PipelineParallelSize,
		InputLen: q.InputLen, OutputLen: q.OutputLen, BatchSize: q.BatchSize,
		MaxModelLen: q.MaxModelLen, MaxNumSeqs: q.MaxNumSeqs, MaxNumBatchedTokens: q.MaxNumBatchedTokens,
		GPUMemoryUtilization: q.GPUMemoryUtilization, BlockSize: q.BlockSize, EnforceEager: frame.Deref(q.EnforceEager),
		Version:      frame.Deref(r.VLLMInternalMetrics.VLLMVersion),
		CompileCache: frame.Deref(r.VLLMInternalMetrics.CompileCache),
	}
}
