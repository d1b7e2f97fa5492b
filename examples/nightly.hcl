# Has last night's vLLM changed how much memory models take?
#
# Run every night with the version under test, then compare two nights:
#
#   vramsweep run --resume examples/nightly.hcl --var vllm=/opt/vllm-nightly/bin/vllm
#   vramsweep summary results/nightly
#   vramsweep compare results/nightly@previous results/nightly@last
#
# Whatever would move by itself is pinned: token and sequence limits, the context,
# the seed. Ids of profiles do not contain the path of vLLM, so the nights meet.

variable "vllm" {
  type        = string
  default     = "vllm"
  description = "the vllm under test"
}

variable "hf_token" {
  type      = string
  default   = ""
  sensitive = true
}

locals {
  pinned = {
    util   = 0.9
    tokens = 8192
    seqs   = 256
  }
}

sweep "nightly" {
  description = "A model a family, and what moves with versions: graphs, eager, fp8"

  matrix {
    model         = ["Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B-Instruct", "google/gemma-3-4b-it", "microsoft/phi-4"]
    enforce_eager = [false, true]
    input_len     = [1024]
    output_len    = [128]
    batch_size    = [1, 32]
  }

  engine "vllm" {
    command                = [var.vllm]
    gpu_memory_utilization = local.pinned.util
    max_num_batched_tokens = local.pinned.tokens
    max_num_seqs           = local.pinned.seqs
    max_model_len          = 4096
    num_iters              = 10
    num_iters_warmup       = 3
    seed                   = 0
  }
  repeats = 3

  env {
    HF_TOKEN = var.hf_token == "" ? null : var.hf_token # null: left out
  }
  limits {
    timeout         = "30m"
    silence_timeout = "10m"
    retries         = 1
    max_failures    = 20
    on_dirty_gpu    = "wait"
  }
}

output {
  dir = "results/nightly"
}
