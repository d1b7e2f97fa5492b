# What do the same models take on an AMD node with eight MI300X?
#
# Memory is 192 GiB a GPU, so a model of 70 billion parameters fits on one. The
# free axis `attention` is a name of ours; the engine block passes it on as the
# flag that it stands for. vLLM runs in a container: `command` replaces `vllm`.

variable "vllm" {
  type    = list(string)
  default = ["docker", "exec", "rocm-vllm", "vllm"]
}

sweep "mi300x" {
  description = "Llama 3 on MI300X"

  matrix {
    model                = ["meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"]
    tensor_parallel_size = [1, 2, 8]
    dtype                = ["bfloat16"]
    attention            = ["TRITON_ATTN", "ROCM_AITER_FA"]
    input_len            = [2048]
    output_len           = [256]
    batch_size           = [1, 64, 256]
  }
  exclude {
    model                = "meta-llama/Llama-3.1-8B-Instruct"
    tensor_parallel_size = 8
  }

  engine "vllm" {
    command                = var.vllm
    attention_backend      = matrix.attention
    gpu_memory_utilization = 0.9
    max_model_len          = 4096
  }
  gpus = range(8)

  env {
    HIP_FORCE_DEV_KERNARG = "1"
    SAFETENSORS_FAST_GPU  = "1"
  }
  sample {
    interval = "250ms"
  }
  limits {
    on_dirty_gpu = "stop"
  }
}

gpu "node" {
  like = "mi300x"
}
