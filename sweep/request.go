package sweep

import "github.com/vramsweep/vramsweep/sweep/models"

// Request is what the memory arithmetic needs to know of the profile.
func (p *Profile) Request() models.Request {
	s := &p.Settings
	return models.Request{
		Dtype: orZero(s.Dtype), KVCacheDtype: orZero(s.KVCacheDtype), Quantization: orZero(s.Quantization),
		TensorParallelSize: s.TensorParallelSize, PipelineParallelSize: s.PipelineParallelSize,
		InputLen: s.InputLen, OutputLen: s.OutputLen, BatchSize: s.BatchSize,
		MaxModelLen: s.MaxModelLen, MaxNumSeqs: s.MaxNumSeqs, MaxNumBatchedTokens: s.MaxNumBatchedTokens,
		GPUMemoryUtilization: s.GPUMemoryUtilization, KVCacheMemoryBytes: s.KVCacheMemoryBytes, BlockSize: s.BlockSize,
		EnforceEager: orZero(s.EnforceEager),
		Version:      p.Engine.VLLMVersion, ModelRunner: p.Engine.ModelRunner, Defaults: p.Engine.Defaults,
	}
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
