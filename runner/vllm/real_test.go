package vllm

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// TestRealVLLM runs a small model with random weights on a real vLLM, where
// VLLM names its program.
func TestRealVLLM(t *testing.T) {
	bin := os.Getenv("VLLM")
	if bin == "" {
		t.Skip("VLLM does not name a vllm program")
	}
	model := filepath.Join(t.TempDir(), "tiny")
	if err := os.MkdirAll(model, 0o755); err != nil {
		t.Fatal(err)
	}
	config := `{"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","hidden_size":256,"intermediate_size":768,"num_hidden_layers":4,
		"num_attention_heads":8,"num_key_value_heads":4,"head_dim":32,"vocab_size":16384,"max_position_embeddings":4096,"rms_norm_eps":1e-6,
		"rope_theta":10000.0,"hidden_act":"silu","tie_word_embeddings":true,"torch_dtype":"bfloat16","bos_token_id":1,"eos_token_id":2,"attention_bias":false}`
	if err := os.WriteFile(filepath.Join(model, "config.json"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	dummy, length, two, yes := "dummy", int64(1024), int64(2), true
	job := &runner.Job{
		RunID: "real", Dir: t.TempDir(), StartedAt: time.Now(), Pulse: &runner.Pulse{},
		Progress: func(p runner.Progress) { t.Logf("%s %s", p.Phase, p.Note) },
		Sweep:    &sweep.Sweep{Env: []sweep.EnvVar{{Name: "VLLM_CPU_KVCACHE_SPACE", Value: "1"}}},
		Profile: &sweep.Profile{
			Settings: sweep.Settings{
				Model: model, HFModelID: model, Asked: sweep.Asked{
					TensorParallelSize: 1, InputLen: 64, OutputLen: 8, BatchSize: 2, MaxModelLen: &length,
					LoadFormat: &dummy, NumIters: &two, NumItersWarmup: &two, EnforceEager: &yes,
				},
			},
			Engine: sweep.Engine{Command: []string{bin}},
		},
	}
	m, err := (&Latency{BaseEnv: os.Environ()}).Run(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if m.Outcome != runner.OutcomeOK || m.Latency == nil || m.Latency.NIters != 2 {
		t.Fatalf("%s: %s; %s; latency %+v; command %s", m.Outcome, m.Detail, m.ErrorLine, m.Latency, Paste(m.Command))
	}
	if m.Account == nil || m.Account.TotalGPUKVCacheTokens == nil || m.Account.UnreadCount != 0 {
		t.Errorf("account %+v", m.Account)
	}
	t.Logf("%v s, %d KV tokens, vLLM %s, wall %v", m.Latency.AvgS, *m.Account.TotalGPUKVCacheTokens, *m.Account.VLLMVersion, m.EndedAt.Sub(m.StartedAt))
}
