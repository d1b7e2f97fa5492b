# What does each further GPU take off the others, and what does it cost?
#
# Weights and KV cache are divided by tensor_parallel_size; the context, NCCL and
# the sampler's share are not. What is left over as "framework overhead" is the
# answer.

locals {
  gpus = 8
}

sweep "tp-scaling" {
  description = "Memory per GPU against tensor parallelism"

  matrix {
    model                = ["Qwen/Qwen3-32B", "meta-llama/Llama-3.3-70B-Instruct"]
    tensor_parallel_size = [for n in [1, 2, 4, 8] : n if n <= local.gpus]
    dtype                = ["bfloat16"]
    shape = [
      { input_len = 512, output_len = 128, batch_size = 32 },
      { input_len = 4096, output_len = 512, batch_size = 8 },
    ]
  }
  # 70 billion parameters in bfloat16 are 131 GiB: one GPU of 80 GB cannot hold them.
  exclude {
    model                = "meta-llama/Llama-3.3-70B-Instruct"
    tensor_parallel_size = 1
  }

  engine "vllm" {
    gpu_memory_utilization = 0.9
    max_model_len          = 8192
    num_iters              = 10
  }
  gpus    = range(local.gpus)
  repeats = 3

  env {
    NCCL_DEBUG = "WARN"
  }
}

gpu "h100" {
  like = "h100-80gb"
}
