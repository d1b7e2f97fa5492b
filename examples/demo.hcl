# What does vramsweep show? A tour of a minute on a machine without a GPU.
#
# Six profiles on two simulated H100: tensor parallelism of 1 and 2, and a model
# that one GPU cannot hold, which runs out of memory and is a row like any other.
# Everything that comes from the simulator says "synthetic".

sweep "demo" {
  description = "One GPU or two, and a model too large for one"

  matrix {
    model                = ["Qwen/Qwen3-8B"]
    tensor_parallel_size = [1, 2]
    dtype                = ["bfloat16"]
    input_len            = [1024]
    output_len           = [128]
    batch_size           = [1, 32]
  }
  include {
    model                = "meta-llama/Llama-3.3-70B-Instruct"
    tensor_parallel_size = [1, 2]
    dtype                = "bfloat16"
    input_len            = 1024
    output_len           = 128
    batch_size           = 1
  }

  engine "simulator" {
    gpu           = "h100-80gb"
    seed          = 7
    max_model_len = 4096
    num_iters     = 10
  }
  sample {
    interval = "20ms" # a simulated run takes about a second
  }
}

output {
  dir = "demo-results"
}
