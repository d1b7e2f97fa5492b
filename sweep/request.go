package sweep

import (
	"encoding/json"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// Request is what the memory arithmetic needs to know of the profile.
func (p *Profile) Request() models.Request {
	s := &p.Settings
	r := models.Request{
		Dtype: orZero(s.Dtype), KVCacheDtype: orZero(s.KVCacheDtype), Quantization: orZero(s.Quantization),
		TensorParallelSize: s.TensorParallelSize, PipelineParallelSize: s.PipelineParallelSize,
		InputLen: s.InputLen, OutputLen: s.OutputLen, BatchSize: s.BatchSize,
		MaxModelLen: s.MaxModelLen, MaxNumSeqs: s.MaxNumSeqs, MaxNumBatchedTokens: s.MaxNumBatchedTokens,
		GPUMemoryUtilization: s.GPUMemoryUtilization, KVCacheMemoryBytes: s.KVCacheMemoryBytes, BlockSize: s.BlockSize,
		EnforceEager: orZero(s.EnforceEager),
		Version:      p.Engine.VLLMVersion, ModelRunner: p.Engine.ModelRunner, Defaults: p.Engine.Defaults,
	}
	for _, f := range p.Engine.Flags {
		switch f.Name {
		case "speculative_config":
			r.Speculative = speculative(f.Value)
		case "enable_prefix_caching":
			r.PrefixCaching = f.Value == true
		case "enable_lora", "cpu_offload_gb", "kv_offloading_size", "kv_transfer_config", "data_parallel_size",
			"enable_expert_parallel", "decode_context_parallel_size", "num_gpu_blocks_override":
			r.NotCounted = append(r.NotCounted, f.Name)
		}
	}
	return r
}

// speculative reads vLLM's speculative_config, which is JSON or an object; nil
// where it is neither.
func speculative(v any) *models.Speculative {
	data, err := json.Marshal(v)
	if text, ok := v.(string); ok {
		data = []byte(text)
	}
	var c struct {
		Method string `json:"method"`
		Tokens int64  `json:"num_speculative_tokens"`
		Model  string `json:"model"`
	}
	if err != nil || json.Unmarshal(data, &c) != nil {
		return nil
	}
	return &models.Speculative{Method: c.Method, Tokens: min(max(c.Tokens, 0), 1<<10), Model: c.Model}
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
