# How far off are memory calculators?
#
# A broad, seeded choice of a large matrix: models of every size and attention,
# dtypes, lengths and batches. The same 60 points on every machine. Then:
#
#   vramsweep check-calculator results

variable "points" {
  type    = number
  default = 60
}

sweep "calculators" {
  description = "A spread of points to judge predictions by"

  matrix {
    model = [
      "Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B", "Qwen/Qwen3-32B",
      "meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.1-8B-Instruct",
      "google/gemma-3-1b-it", "google/gemma-3-12b-it",
      "mistralai/Mistral-7B-Instruct-v0.3", "microsoft/phi-4",
      "deepseek-ai/DeepSeek-V2-Lite", "openai/gpt-oss-20b",
    ]
    kv_cache_dtype = ["auto", "fp8"]
    enforce_eager  = [false, true]
    max_num_seqs   = [64, 256, 1024]
    input_len      = [128, 1024, 4096, 16384]
    output_len     = [128]
    batch_size     = [1, 16, 64]
  }
  exclude { when = matrix.batch_size > matrix.max_num_seqs || matrix.input_len * matrix.batch_size > 262144 }

  pick {
    n    = var.points
    seed = 2026
  }

  engine "vllm" {
    gpu_memory_utilization = 0.9
    max_model_len          = max(2048, profile.input_len + profile.output_len)
    max_num_batched_tokens = 8192
    load_format            = "dummy"
    trust_remote_code      = can(regex("^deepseek-ai/", matrix.model))
    num_iters              = 3
    num_iters_warmup       = 1
  }
}
