# What do 16 bits, fp8 and 4 bits cost in memory and latency for the same model?
#
# A checkpoint comes with its quantization, so model and quantization belong
# together: an axis of objects varies them as pairs. `label` is a free name; it
# becomes a column of the results.

locals {
  variants = [
    { label = "bf16", model = "meta-llama/Llama-3.1-8B-Instruct", dtype = "bfloat16" },
    { label = "fp16", model = "meta-llama/Llama-3.1-8B-Instruct", dtype = "float16" },
    { label = "fp8", model = "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic", dtype = "bfloat16" },
    { label = "w4a16", model = "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", dtype = "bfloat16" },
    { label = "awq", model = "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", dtype = "float16" },
  ]
}

sweep "dtypes" {
  description = "Llama 3.1 8B: weights of 16, 8 and 4 bits"

  matrix {
    variant        = local.variants
    kv_cache_dtype = ["auto", "fp8"]
    input_len      = [1024]
    output_len     = [256]
    batch_size     = [1, 16, 64]
  }
  # An fp8 cache needs kernels that the AWQ path of older GPUs lacks.
  exclude { when = matrix.variant.label == "awq" && matrix.kv_cache_dtype == "fp8" }

  engine "vllm" {
    max_model_len          = 2048
    gpu_memory_utilization = 0.9
    seed                   = 0
  }
  repeats = 3
}
