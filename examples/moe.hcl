# How much memory do experts take that are hardly ever active?
#
# All experts stay in memory, so a mixture of 30 billion parameters with 3 billion
# active ones takes the memory of a dense model of 30. The dense models beside
# them, of like size in total or in active parameters, show both.

sweep "moe" {
  description = "Mixtures of experts beside dense models"

  matrix {
    model                = ["Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b", "Qwen/Qwen3-32B", "Qwen/Qwen3-4B"]
    tensor_parallel_size = [1, 2]
    expert_parallel      = [false, true]
    input_len            = [1024]
    output_len           = [128]
    batch_size           = [1, 64]
  }
  # Only a mixture has experts to place, and only on several GPUs.
  exclude {
    model           = ["Qwen/Qwen3-32B", "Qwen/Qwen3-4B"]
    expert_parallel = true
  }
  exclude {
    tensor_parallel_size = 1
    expert_parallel      = true
  }

  engine "vllm" {
    gpu_memory_utilization = 0.92
    max_model_len          = 4096
    enable_expert_parallel = matrix.expert_parallel ? true : null # null: the flag is left out
  }
}
