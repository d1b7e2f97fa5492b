package replay

import (
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// newResult fills what a recording tells without its samples.
func newResult(in *info, job *runner.Job, m *runner.Measurement) *runner.Result {
	r := &runner.Result{SchemaVersion: runner.SchemaVersion, Timestamp: m.EndedAt, GPUInfo: job.Devices}
	r.Run = runner.RunInfo{
		RunID: job.RunID, ProfileID: job.Profile.ID, Execution: job.Execution, Sweep: job.Sweep.Name, Repeat: 1, Attempts: 1,
		StartedAt: m.StartedAt, EndedAt: m.EndedAt, WallS: m.EndedAt.Sub(m.StartedAt).Seconds(),
		Outcome: m.Outcome, OutcomeDetail: m.Detail, ErrorLine: m.ErrorLine, ExitCode: m.ExitCode, Command: m.Command, Environment: m.Env,
	}
	s := &job.Profile.Settings
	r.ModelInfo = modelInfo(s.Model, s.HFModelID, job.Profile.Model)
	r.BenchmarkParameters = runner.BenchmarkParameters{
		Engine: "import", EngineMode: "latency", Dtype: s.Dtype, KVCacheDtype: s.KVCacheDtype, Quantization: s.Quantization,
		TensorParallelSize: s.TensorParallelSize, PipelineParallelSize: s.PipelineParallelSize,
		InputLen: s.InputLen, OutputLen: s.OutputLen, BatchSize: s.BatchSize, MaxModelLen: s.MaxModelLen, MaxNumSeqs: s.MaxNumSeqs,
		MaxNumBatchedTokens: s.MaxNumBatchedTokens, GPUMemoryUtilization: s.GPUMemoryUtilization, KVCacheMemoryBytes: s.KVCacheMemoryBytes,
		BlockSize: s.BlockSize, EnforceEager: s.EnforceEager, LoadFormat: s.LoadFormat, NumIters: s.NumIters, NumItersWarmup: s.NumItersWarmup,
	}
	r.LatencyStats, r.VLLMInternalMetrics = m.Latency, m.Account
	r.EngineMetadata.Engine = "vllm"
	r.Provenance.VLLMEnv = map[string]string{}
	for name, value := range in.Env {
		if strings.HasPrefix(name, "VLLM_") {
			r.Provenance.VLLMEnv[name] = value
		}
	}
	if a := m.Account; a != nil {
		r.BenchmarkParameters.Effective = runner.Effective{
			Dtype: a.Dtype, KVCacheDtype: a.KVCacheDtype, Quantization: a.Quantization, MaxModelLen: a.MaxModelLen, MaxNumSeqs: a.MaxNumSeqs,
			MaxNumBatchedTokens: a.MaxNumBatchedTokens, GPUMemoryUtilization: a.GPUMemoryUtilization, BlockSize: a.BlockSize,
		}
		r.EngineMetadata.VLLMVersion, r.EngineMetadata.EngineVersion = a.VLLMVersion, a.Engine
		r.EngineMetadata.ModelRunner, r.EngineMetadata.AttentionBackend = a.ModelRunner, a.AttentionBackend
		r.EngineMetadata.CompileCache, r.EngineMetadata.LoadFormat = a.CompileCache, a.LoadFormat
		r.DtypeMetadata.Dtype, r.DtypeMetadata.KVCacheDtype, r.DtypeMetadata.Quantization = a.Dtype, a.KVCacheDtype, a.Quantization
	}
	return r
}

func modelInfo(model, hfID string, a *models.Architecture) runner.ModelInfo {
	i := runner.ModelInfo{Model: model, HFModelID: hfID, Source: "unknown"}
	if a == nil {
		return i
	}
	set := func(v int64) *int64 {
		if v == 0 {
			return nil
		}
		return &v
	}
	i.Family, i.Source = a.Family, a.Source
	if a.Architecture != "" {
		name := a.Architecture
		i.Architecture = &name
	}
	i.Params, i.NumLayers, i.NumHeads, i.NumKVHeads = set(a.Params), set(a.NumLayers), set(a.NumHeads), set(a.NumKVHeads)
	i.HeadDim, i.HiddenSize, i.VocabSize = set(a.HeadDim), set(a.HiddenSize), set(a.VocabSize)
	return i
}
