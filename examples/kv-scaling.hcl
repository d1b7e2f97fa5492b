# How does the KV cache limit context length and batch size, and what does an
# fp8 cache buy?
#
# The matrix holds every combination; the exclude takes away what no GPU of this
# size could keep in its cache anyway. The context is pinned to what each point
# needs, so that vLLM's figures are those of the point.

variable "util" {
  type        = number
  default     = 0.9
  description = "vLLM's share of the GPU's memory"
  validation {
    condition     = var.util > 0 && var.util <= 1
    error_message = "The share of GPU memory lies between 0 and 1."
  }
}

locals {
  lengths = [512, 2048, 8192, 32768]
}

sweep "kv-scaling" {
  description = "KV cache against context length, batch and dtype"

  matrix {
    model          = ["meta-llama/Llama-3.2-1B-Instruct", "Qwen/Qwen3-8B"]
    kv_cache_dtype = ["auto", "fp8"]
    input_len      = local.lengths
    output_len     = [256]
    batch_size     = [1, 8, 32]
  }
  exclude { when = matrix.input_len * matrix.batch_size > 131072 }

  engine "vllm" {
    gpu_memory_utilization = var.util
    max_model_len          = profile.input_len + profile.output_len
    max_num_seqs           = max(profile.batch_size, 8)
    load_format            = "dummy" # memory does not depend on what the weights say
  }

  repeats = 2
  limits {
    timeout = "20m"
    skip    = ["never_fits", "dominated"]
  }
}
