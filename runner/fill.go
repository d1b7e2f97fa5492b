package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// NewResult is the record of a job before anything is known but what was
// planned.
func NewResult(job *Job) *Result {
	p, s := job.Record(), &job.Profile.Settings
	r := &Result{
		SchemaVersion: SchemaVersion, Timestamp: job.StartedAt.UTC(), GPUInfo: job.Devices,
		Missing: map[string]string{},
		Run: RunInfo{
			RunID: job.RunID, ProfileID: p.ID, Execution: job.Execution, Sweep: p.Sweep,
			Repeat: job.Repeat, Attempts: job.Attempt, StartedAt: job.StartedAt.UTC(), Synthetic: job.Synthetic,
			Shard: job.Shard, Axes: map[string]any{}, Command: []string{}, Environment: map[string]string{},
		},
		ModelInfo:     modelInfo(s, p.Model),
		DtypeMetadata: DtypeMetadata{Dtype: s.Dtype, KVCacheDtype: s.KVCacheDtype, Quantization: s.Quantization},
		BenchmarkParameters: BenchmarkParameters{
			Engine: p.Engine.Kind, EngineMode: p.Engine.Mode, Asked: s.Asked, Flags: flagMap(p.Engine.Flags),
		},
		EngineMetadata: EngineMetadata{Engine: p.Engine.Kind, LoadFormat: s.LoadFormat},
		Provenance:     Provenance{VLLMEnv: map[string]string{}},
	}
	if p.Engine.VLLMVersion != "" && p.Engine.Kind == "simulator" {
		r.EngineMetadata.VLLMVersion = &p.Engine.VLLMVersion
	}
	for _, a := range p.Axes {
		r.Run.Axes[a.Axis] = a.Value
	}
	fillDtype(r, p)
	for _, d := range job.Devices {
		r.Provenance.DriverVersion = cmp.Or(r.Provenance.DriverVersion, known(d.DriverVersion))
	}
	return r
}

// fillDtype says what a parameter and a token cost by the architecture: bytes of
// all weights over all parameters, and of the KV cache of all ranks a token.
func fillDtype(r *Result, p *sweep.Profile) {
	s, d := &p.Settings, &r.DtypeMetadata
	if p.Model == nil {
		r.Missing["dtype_metadata.weight_bytes_per_param"] = "the catalogue does not have the model"
		r.Missing["dtype_metadata.kv_bytes_per_token"] = "the catalogue does not have the model"
		return
	}
	weights, ok, why := models.WeightBytes(p.Model, orZero(s.Dtype), orZero(s.Quantization), 1, 1)
	if ok && p.Model.Params > 0 {
		each := float64(weights) / float64(p.Model.Params)
		d.WeightBytesPerParam = &each
	} else {
		r.Missing["dtype_metadata.weight_bytes_per_param"] = why
	}
	tp := max(s.TensorParallelSize, 1)
	kvDtype := orZero(s.KVCacheDtype)
	if q := p.Model.Quantization; (kvDtype == "" || kvDtype == "auto") && (q == nil || q.KVCache == "") {
		kvDtype = orZero(s.Dtype) // "auto" follows the model's dtype, which the profile may set
	}
	if n, ok, why := models.KVBytesPerToken(p.Model, kvDtype, tp); ok {
		n *= tp
		d.KVBytesPerToken = &n
	} else {
		r.Missing["dtype_metadata.kv_bytes_per_token"] = why
	}
}

func modelInfo(s *sweep.Settings, m *models.Architecture) ModelInfo {
	info := ModelInfo{Model: s.Model, HFModelID: s.HFModelID, Source: "unknown"}
	if m == nil {
		return info
	}
	info.Family, info.Source, info.Architecture = m.Family, m.Source, known(m.Architecture)
	info.Params, info.NumLayers = known(m.Params), known(m.NumLayers)
	info.NumHeads, info.NumKVHeads = known(m.NumHeads), known(m.NumKVHeads)
	info.HeadDim, info.HiddenSize, info.VocabSize = known(m.HeadDim), known(m.HiddenSize), known(m.VocabSize)
	return info
}

// known is nil for what a zero says nothing of.
func known[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func flagMap(flags []sweep.Flag) map[string]any {
	if len(flags) == 0 {
		return nil
	}
	m := make(map[string]any, len(flags))
	for _, f := range flags {
		m[f.Name] = f.Value
	}
	return m
}

// newResult is NewResult with what the Runner knows of the machine.
func (a *attempt) newResult() *Result { return a.executor.newResult(a.job) }

func (x *executor) newResult(job *Job) *Result {
	r := NewResult(job)
	r.ProfilerVersion = x.Version
	r.Provenance.Host, r.Provenance.OS, r.Provenance.Vramsweep = x.Host, x.OS, x.Version
	return r
}

// fill takes over what the engine brought back; cause is that of its context.
func (a *attempt) fill(r *Result, cause error) {
	r.Take(a.measured)
	run := &r.Run
	run.Lane = a.job.Turn.told(a.measured.Latency != nil)
	if !a.measured.Decided {
		causeDecides(run, cause)
	}
	if run.Outcome == "" {
		run.Outcome, run.OutcomeDetail = OutcomeEngineError, "the engine ended without an outcome"
	}
	if run.Outcome.Failed() {
		run.FailedIn = lastPhase(a.measured.Events)
	}
	a.missing(r)
}

// Take takes over what the engine brought back.
func (r *Result) Take(m *Measurement) {
	run := &r.Run
	run.Outcome, run.OutcomeDetail, run.ErrorLine, run.ExitCode = m.Outcome, m.Detail, m.ErrorLine, m.ExitCode
	if m.Signal != "" && m.Outcome.Failed() && !strings.Contains(run.OutcomeDetail, m.Signal) {
		run.Notes = append(run.Notes, "the engine was ended by a signal: "+m.Signal)
	}
	if m.Command != nil {
		run.Command = m.Command
	}
	if m.Env != nil {
		run.Environment = m.Env
	}
	run.Leftovers = m.Leftovers
	run.Notes = append(run.Notes, m.Notes...)
	r.VLLMInternalMetrics, r.LatencyStats, r.Session, r.Start = m.Account, m.Latency, m.Session, m.Start
	r.RawLogs, r.LogEvents = m.Logs, m.Events
	for name, value := range run.Environment {
		if strings.HasPrefix(name, "VLLM_") {
			r.Provenance.VLLMEnv[name] = value
		}
	}
	if m.Account != nil {
		fillAccount(r, m.Account)
	}
}

// causeDecides: a limit or an interruption ended the engine, whatever the engine
// says of it; unless it had finished by then.
func causeDecides(run *RunInfo, cause error) {
	if cause == nil || run.Outcome == OutcomeOK || errors.Is(cause, context.Canceled) {
		return
	}
	var limit *LimitError
	if errors.As(cause, &limit) {
		run.Outcome, run.OutcomeDetail = limit.Outcome, limit.Error()
		return
	}
	run.Outcome, run.OutcomeDetail = OutcomeInterrupted, cause.Error()
}

// fillAccount takes over what vLLM says of itself.
func fillAccount(r *Result, acc *Account) {
	e := &r.EngineMetadata
	if acc.VLLMVersion != nil {
		e.VLLMVersion = acc.VLLMVersion
	}
	e.EngineVersion, e.ModelRunner = acc.Engine, acc.ModelRunner
	e.AttentionBackend, e.CompileCache = acc.AttentionBackend, acc.CompileCache
	if acc.LoadFormat != nil {
		e.LoadFormat = acc.LoadFormat
	}
	r.BenchmarkParameters.Effective = Effective{
		EffectiveDtype: acc.Dtype, EffectiveKVCacheDtype: acc.KVCacheDtype, EffectiveQuantization: acc.Quantization,
		EffectiveMaxModelLen: acc.MaxModelLen, EffectiveMaxNumSeqs: acc.MaxNumSeqs,
		EffectiveMaxNumBatchedTokens:  acc.MaxNumBatchedTokens,
		EffectiveGPUMemoryUtilization: acc.GPUMemoryUtilization, EffectiveBlockSize: acc.BlockSize,
	}
	if r.ModelInfo.Architecture == nil {
		r.ModelInfo.Architecture = acc.Architecture
	}
}

// missing gives the reasons for the sections that are not there.
func (a *attempt) missing(r *Result) {
	why := "the run ended as " + string(r.Run.Outcome)
	if r.Run.OutcomeDetail != "" {
		why += ": " + r.Run.OutcomeDetail
	}
	switch l := r.LatencyStats; {
	case l == nil:
		r.Missing["latency_stats"] = why
	case l.NIters < LeastForP99:
		r.Missing["latency_stats.percentiles.p99"] = fmt.Sprintf(
			"of %d iterations it would be the slowest; it asks for %d", l.NIters, LeastForP99)
	}
	if r.VLLMInternalMetrics == nil {
		r.Missing["vllm_internal_metrics"] = "the engine left no log to read"
	} else {
		for field, reason := range r.VLLMInternalMetrics.Missing {
			if _, known := r.Missing["vllm_internal_metrics."+field]; !known {
				r.Missing["vllm_internal_metrics."+field] = reason
			}
		}
	}
	if len(a.job.Devices) == 0 {
		r.Missing["gpu_info"] = "no GPU can be seen on this machine"
		r.Missing["detailed_gpu_metrics"] = "no GPU can be seen on this machine"
	}
	if a.profile.Model == nil {
		r.Missing["model_info"] = fmt.Sprintf(
			"the catalogue does not have %s; vramsweep models add reads its config.json", r.ModelInfo.Model)
	}
	if r.EngineMetadata.VLLMVersion == nil {
		r.Missing["engine_metadata.vllm_version"] = "the engine's log does not name it"
	}
	if r.Provenance.DriverVersion == nil {
		r.Missing["provenance.driver_version"] = "no GPU tool reported it"
	}
}

// ReachedBy is the phase that an event proves to have begun; for the end of a
// phase, the one that follows. "" for an event that proves none.
func ReachedBy(kind EventKind) Phase {
	switch kind {
	case EventFirstLine, EventEngineInit:
		return PhaseEngineInit
	case EventLoadStart:
		return PhaseLoad
	case EventLoadEnd, EventProfileStart:
		return PhaseProfile
	case EventProfileEnd, EventKVReady:
		return PhaseKVAlloc
	case EventCaptureStart:
		return PhaseCapture
	case EventCaptureEnd:
		return PhaseEngineWarmup
	case EventEngineReady, EventWarmupStart, EventWarmupIter:
		return PhaseBenchWarmup
	case EventMeasureStart, EventMeasureIter, EventRequestStart:
		return PhaseMeasure
	case EventMeasureEnd:
		return PhaseTeardown
	}
	return ""
}

// Phases are the phases of a run in their order.
func Phases() []Phase {
	return []Phase{PhaseBaseline, PhaseEngineInit, PhaseLoad, PhaseProfile, PhaseEstimateCapture, PhaseKVAlloc,
		PhaseKernelWarmup, PhaseCapture, PhaseEngineWarmup, PhaseBenchWarmup, PhaseMeasure, PhaseTeardown, PhaseFinal}
}

// Order is the place of a phase among those of a run, -1 for none.
func (p Phase) Order() int { return slices.Index(Phases(), p) }

// lastPhase is the furthest phase that the events prove; PhaseEngineInit if they
// prove none. A capture with no KV cache before it was made for an estimate.
func lastPhase(events []LogEvent) Phase {
	last := PhaseEngineInit
	kv := slices.IndexFunc(events, func(e LogEvent) bool { return e.Kind == EventKVReady })
	for _, e := range events {
		if e.Kind == EventShutdown {
			continue // an engine that failed says that it stops, too
		}
		p := ReachedBy(e.Kind)
		if capture := e.Kind == EventCaptureStart || e.Kind == EventCaptureEnd; capture &&
			(kv < 0 || e.Arrived.Before(events[kv].Arrived)) {
			p = PhaseEstimateCapture
		}
		if p.Order() > last.Order() {
			last = p
		}
	}
	return last
}
