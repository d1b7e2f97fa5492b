package runner

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// skip gives the row of a run that need not be measured, nil if it must be.
func (l *lane) skip(d due) *Result {
	limits := d.sweep.Limits
	reason, because := "", ""
	if limits.SkipDominated {
		l.locked(func() { reason, because = l.rules.dominated(d.sweep, d.profile) })
	}
	var devices []Device
	if reason == "" && limits.SkipNeverFits && l.Estimate != nil {
		devices = l.unit.devices
		reason = neverFits(l.Estimate(d.profile, devices))
	}
	if reason == "" {
		return nil
	}
	r := l.newResult(l.newJob(d, devices, 1))
	r.Run.Outcome, r.Run.OutcomeDetail, r.Run.SkippedBecause = OutcomeSkipped, reason, because
	for _, section := range []string{"latency_stats", "vllm_internal_metrics", "memory_timeline", "memory_breakdown",
		"detailed_gpu_metrics"} {
		r.Missing[section] = "the run was skipped: " + reason
	}
	return r
}

// neverFits says why a profile cannot fit by the arithmetic, "" if it may: also
// where the estimate says no but its error is larger than what is missing.
func neverFits(e *models.Estimate) string {
	if e == nil || e.Fits == nil || *e.Fits || (e.ShortBy != nil && *e.ShortBy <= estimateError(e)) {
		return ""
	}
	text := "never_fits: " + cmp.Or(e.Reason, "it does not fit by the estimate")
	if e.ShortBy != nil {
		text += fmt.Sprintf(" (%s short by the estimate, whose error is %s)", gib(e.ShortBy), gib(new(estimateError(e))))
	}
	return text
}

// estimateError is by how much memory may turn out larger than estimated, bytes.
func estimateError(e *models.Estimate) int64 {
	down := func(f models.Figure) int64 { return spread(f.Low, f.Value) }
	return max(spread(e.KVCache.Value, e.KVCache.High), down(e.Context),
		down(e.Weights)+down(e.Activations)+down(e.NonTorch))
}

func spread(low, high *int64) int64 {
	if low == nil || high == nil {
		return 0
	}
	return max(*high-*low, 0)
}

// A check is what a failed run failed at: which settings enter it.
type check string

// The checks, and what enters each beside the model and the number of GPUs.
const (
	checkLoad    check = "the weights did not fit"                   // dtype
	checkProfile check = "the profile run did not fit"               // and the scheduler's limits
	checkKV      check = "no memory was left for the KV cache"       // and utilization; no batch, no lengths
	checkLength  check = "the KV cache is too small for the context" // and kv_cache_dtype
	checkCapture check = "memory ran out after the KV cache"         // and utilization, the other way round
	checkMeasure check = "memory ran out while measuring"            // and batch and lengths
)

// checkOf names the check that a failed run failed, "" if skipping by it would
// be a guess.
func checkOf(r *Result) check {
	switch r.Run.Outcome {
	case OutcomeNoKVMemory:
		return checkKV
	case OutcomeKVTooSmall:
		return checkLength
	case OutcomeOOM:
	default:
		return ""
	}
	switch r.Run.FailedIn {
	case PhaseEngineInit, PhaseLoad:
		return checkLoad
	case PhaseProfile:
		return checkProfile
	case PhaseEstimateCapture, PhaseKVAlloc, PhaseKernelWarmup, PhaseCapture, PhaseEngineWarmup:
		return checkCapture
	case PhaseBenchWarmup, PhaseMeasure, PhaseTeardown:
		return checkMeasure
	}
	return ""
}

// A failure is a run that failed a check.
type failure struct {
	sweep   *sweep.Sweep
	profile *sweep.Profile
	check   check
	run     string
}

// rules remember failures.
type rules struct{ failures []failure }

func (r *rules) learn(s *sweep.Sweep, p *sweep.Profile, result *Result) {
	if c := checkOf(result); c != "" {
		r.failures = append(r.failures, failure{s, p, c, result.Run.RunID})
	}
}

// dominated looks for a failed run whose profile needs at most as much in every
// setting that entered the check it failed. Only profiles of one sweep are
// compared: they share GPUs and environment.
func (r *rules) dominated(s *sweep.Sweep, p *sweep.Profile) (reason, run string) {
	for i := range r.failures {
		f := &r.failures[i]
		if f.sweep == s && f.profile.ID != p.ID && needsAtLeast(f.check, f.profile, p) {
			return fmt.Sprintf("dominated: needs at least as much as the point %s, where %s",
				differing(f.profile, p), f.check), f.run
		}
	}
	return "", ""
}

// differing are the axes of a profile that differ from another's, as points are written.
func differing(f, p *sweep.Profile) string {
	only := *f
	only.Axes = slices.DeleteFunc(slices.Clone(f.Axes), func(a sweep.AxisValue) bool {
		return slices.ContainsFunc(p.Axes, func(b sweep.AxisValue) bool { return reflect.DeepEqual(a, b) })
	})
	return point(&only)
}

// needsAtLeast reports whether candidate c needs at least as much as f in all
// settings that enter the check. Settings that do not enter it do not matter;
// settings of which it is not known must be equal.
func needsAtLeast(ch check, f, c *sweep.Profile) bool {
	return sameOtherwise(f, c) && compare(ch, &f.Settings, &c.Settings)
}

// compare is needsAtLeast of the settings that enter the check.
func compare(ch check, f, c *sweep.Settings) bool {
	// Fewer GPUs hold more each.
	gpus := c.TensorParallelSize <= f.TensorParallelSize && c.PipelineParallelSize <= f.PipelineParallelSize
	dtype := larger(dtypeBytes(f.Dtype), dtypeBytes(c.Dtype), same(f.Dtype, c.Dtype))
	types := same(f.Dtype, c.Dtype) && same(f.KVCacheDtype, c.KVCacheDtype)
	limits := asked(f.MaxModelLen, c.MaxModelLen) && asked(f.MaxNumSeqs, c.MaxNumSeqs) &&
		asked(f.MaxNumBatchedTokens, c.MaxNumBatchedTokens)
	graphs := eager(f) || !eager(c)
	fixed := same(f.KVCacheMemoryBytes, c.KVCacheMemoryBytes) && same(f.BlockSize, c.BlockSize)
	// A larger share leaves less outside of it, a smaller one less within.
	within := asked(c.GPUMemoryUtilization, f.GPUMemoryUtilization)
	outside := asked(f.GPUMemoryUtilization, c.GPUMemoryUtilization)
	longer := c.BatchSize >= f.BatchSize && c.InputLen >= f.InputLen && c.OutputLen >= f.OutputLen
	needs, known := map[check][]bool{
		// The V2 runner's buffers, held from load on, grow with the limits.
		checkLoad:    {dtype, limits},
		checkProfile: {dtype, limits, graphs},
		checkKV:      {dtype, limits, graphs, fixed, within},
		checkLength:  {dtype, limits, graphs, fixed, within, larger(kvBytes(f), kvBytes(c), types)},
		// Weights and KV share one budget: with another type of either it cannot be told.
		checkCapture: {types, limits, graphs, fixed, outside},
		checkMeasure: {types, limits, graphs, fixed, outside, longer},
	}[ch]
	return known && gpus && !slices.Contains(needs, false)
}

// Chain names what a profile has in common with all that could dominate it, or be
// dominated by it (sameOtherwise).
func Chain(p *sweep.Profile) string {
	s := &p.Settings
	// Marshal cannot fail: all is plain data.
	text, _ := json.Marshal([]any{p.Sweep, s.HFModelID, s.Quantization, s.LoadFormat, s.TrustRemoteCode, p.Engine})
	return string(text)
}

// sameOtherwise: whatever is neither compared nor known to be without effect on
// memory must be equal.
func sameOtherwise(f, c *sweep.Profile) bool {
	a, b := &f.Settings, &c.Settings
	return a.HFModelID == b.HFModelID && same(a.Quantization, b.Quantization) && same(a.LoadFormat, b.LoadFormat) &&
		same(a.TrustRemoteCode, b.TrustRemoteCode) && reflect.DeepEqual(f.Engine, c.Engine)
}

func same[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// asked compares settings that may be left to vLLM: then both must be.
func asked[T int64 | float64](f, c *T) bool {
	if f == nil || c == nil {
		return f == nil && c == nil
	}
	return *c >= *f
}

// larger compares sizes; 0 is unknown, and then they must be known to be equal.
func larger(f, c float64, equal bool) bool {
	if f == 0 || c == 0 {
		return f == c && equal
	}
	return c >= f
}

// eager: without graphs less is needed; left to vLLM is as false.
func eager(s *sweep.Settings) bool { return orZero(s.EnforceEager) }

// dtypeBytes is the size of a parameter; 0 where the model decides or the name
// is unknown.
func dtypeBytes(dtype *string) float64 {
	switch orZero(dtype) {
	case "float32", "float":
		return 4
	case "float16", "half", "bfloat16":
		return 2
	}
	return 0
}

// kvBytes is the size of an element of the KV cache; 0: unknown.
func kvBytes(s *sweep.Settings) float64 {
	if s.KVCacheDtype == nil || *s.KVCacheDtype == "auto" {
		return dtypeBytes(s.Dtype)
	}
	switch *s.KVCacheDtype {
	case "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "int8":
		return 1
	}
	return dtypeBytes(s.KVCacheDtype)
}
