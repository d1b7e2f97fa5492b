# How long a context can each model take on one GPU before the KV cache is full?
#
# Lengths go up to each model's own limit: the catalogue knows it, so a point
# beyond it is excluded instead of failing. `dominated` skips what asks for more
# than a profile that has run out of memory already.

locals {
  models  = ["meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B", "google/gemma-3-12b-it", "mistralai/Mistral-Nemo-Instruct-2407"]
  lengths = [for i in range(12, 18) : pow(2, i) - 512]
}

sweep "long-context" {
  description = "Up to 128K tokens, one sequence at a time"

  matrix {
    model                  = local.models
    max_num_batched_tokens = [8192]
    input_len              = local.lengths
    output_len             = [256]
    batch_size             = [1]
  }
  exclude { when = matrix.input_len + matrix.output_len > model.max_position_embeddings }

  engine "vllm" {
    max_model_len          = profile.input_len + profile.output_len
    max_num_seqs           = 1
    gpu_memory_utilization = 0.92
    num_iters              = 3
    num_iters_warmup       = 1
  }
  limits {
    timeout         = "45m"
    startup_timeout = "20m"
    skip            = ["never_fits", "dominated"]
  }
}
