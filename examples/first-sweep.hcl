# How much GPU memory does a small model take, and where does it go?
#
# Four short runs of real vLLM on one GPU of 8 GiB or more. The first run
# downloads 1.2 GB of weights. Try it without a GPU: replace the engine's label
# by "simulator".
#
#   vramsweep plan examples/first-sweep.hcl
#   vramsweep run  examples/first-sweep.hcl

sweep "first" {
  description = "Qwen3-0.6B: two lengths, two batch sizes"

  matrix {
    model      = ["Qwen/Qwen3-0.6B"]
    dtype      = ["bfloat16"]
    input_len  = [512, 2048]
    output_len = [128]
    batch_size = [1, 8]
  }

  engine "vllm" {
    max_model_len    = matrix.input_len + matrix.output_len
    num_iters        = 5
    num_iters_warmup = 2
  }
}

output {
  dir = "results"
}
