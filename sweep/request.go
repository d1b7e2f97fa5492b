package sweep

import "github.com/vramsweep/vramsweep/sweep/models"

// Request is what the memory arithmetic needs to know of the profile.
func (p *Profile) Request() models.Request {
	s := &p.Settings
	r := models.Request{
		TensorParallelSize: s.TensorParallelSize, PipelineParallelSize: s.PipelineParallelSize,
		InputLen: s.InputLen, OutputLen: s.OutputLen, BatchSize: s.BatchSize,
		MaxModelLen: s.MaxModelLen, MaxNumSeqs: s.MaxNumSeqs, MaxNumBatchedTokens: s.MaxNumBatchedTokens,
		GPUMemoryUtilization: s.GPUMemoryUtilization, KVCacheMemoryBytes: s.KVCacheMemoryBytes, BlockSize: s.BlockSize,
		Version: p.Engine.VLLMVersion, ModelRunner: p.Engine.ModelRunner, Defaults: p.Engine.Defaults,
	}
	if s.Dtype != nil {
		r.Dtype = *s.Dtype
	}
	if s.KVCacheDtype != nil {
		r.KVCacheDtype = *s.KVCacheDtype
	}
	if s.Quantization != nil {
		r.Quantization = *s.Quantization
	}
	if s.EnforceEager != nil {
		r.EnforceEager = *s.EnforceEager
	}
	return r
}
