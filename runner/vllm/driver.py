"""One vLLM engine that serves many profiles: the driver of vramsweep's session mode.

usage: driver.py IN_FD OUT_FD -- ENGINE FLAGS OF VLLM

It reads one JSON object a line from IN_FD and answers on OUT_FD; standard output
and standard error stay vLLM's own. Each profile is what `vllm bench latency`
does: random token ids below 10,000, end of sequence ignored, warm-up
iterations, timed iterations, numpy's percentiles.

Needs vLLM 0.6.0 or newer (the keyword arguments of LLM are those of EngineArgs,
LLM.generate takes token prompts). What a version lacks is null with a reason:
torch's figures need LLM.collective_rpc (0.7 and later) or an engine in this
process on one GPU, the scheduler's need the V1 engine.
"""

import json
import os
import sys
import time
import traceback

MOMENT_READY = "engine_ready"
VOCABULARY = 10000  # what `vllm bench latency` draws its token ids from


def gpu_uuid(accelerator, device):
    """The driver's name of the GPU that this rank runs on; None where torch (before 2.5) does not tell it."""
    uuid = getattr(accelerator.get_device_properties(device), "uuid", None)
    return None if uuid is None else f"GPU-{uuid}"


class MemoryExtension:
    """Mixed into vLLM's workers (worker_extension_cls): what torch knows on each rank."""

    def vramsweep_memory(self, reset_peak=False):
        import torch

        reading = {"rank": int(getattr(self, "rank", 0)), "t": time.time()}
        accelerator = getattr(torch, "cuda", None)
        if accelerator is None or not accelerator.is_available():
            reading["reason"] = "torch sees no GPU on this rank"
            return reading
        device = getattr(self, "device", None)
        reading["allocated_bytes"] = int(accelerator.memory_allocated(device))
        reading["reserved_bytes"] = int(accelerator.memory_reserved(device))
        reading["peak_bytes"] = int(accelerator.max_memory_allocated(device))
        reading["gpu_uuid"] = gpu_uuid(accelerator, device)
        free, total = accelerator.mem_get_info(device)
        reading["free_bytes"], reading["total_bytes"] = int(free), int(total)
        if reset_peak:
            accelerator.reset_peak_memory_stats(device)
        return reading


class Pipe:
    """JSON lines on file descriptors that no child inherits."""

    def __init__(self, fd_in, fd_out):
        os.set_inheritable(fd_in, False)
        os.set_inheritable(fd_out, False)
        self.reader = os.fdopen(fd_in, "r", encoding="utf-8")
        self.fd_out = fd_out

    def send(self, event, **fields):
        line = json.dumps({"event": event, "t": time.time(), **fields}) + "\n"
        data = line.encode()
        while data:
            data = data[os.write(self.fd_out, data):]

    def receive(self):
        for line in self.reader:
            if line.strip():
                return json.loads(line)
        return None


class Usage:
    """The engine's own figures, read from what every step brings back anyway."""

    def __init__(self, llm):
        self.llm = llm
        self.reason = None
        self.reset()
        client = getattr(llm.llm_engine, "engine_core", None)
        get_output = getattr(client, "get_output", None)
        if get_output is None:
            self.reason = "this vLLM has no engine core that can be asked"
            return

        def observed(*args, **kwargs):
            outputs = get_output(*args, **kwargs)
            self.observe(getattr(outputs, "scheduler_stats", None))
            return outputs

        client.get_output = observed

    def reset(self):
        self.kv_share = None
        self.waiting = None
        self.running = None
        self.preemptions_before = self.preemptions()

    def observe(self, stats):
        if stats is None:
            return
        share = getattr(stats, "kv_cache_usage", None)
        if share is None:
            share = getattr(stats, "gpu_cache_usage", None)
        self.kv_share = larger(self.kv_share, share)
        self.waiting = larger(self.waiting, getattr(stats, "num_waiting_reqs", None))
        self.running = larger(self.running, getattr(stats, "num_running_reqs", None))

    def preemptions(self):
        try:
            for metric in self.llm.get_metrics():
                if metric.name == "vllm:num_preemptions":
                    return int(metric.value)
        except Exception:  # metrics are switched off, or this version has none
            return None
        return None

    def report(self):
        engine = self.llm.llm_engine
        cache = getattr(engine, "vllm_config", engine).cache_config  # before 0.6.4 the engine's own
        blocks, size = cache.num_gpu_blocks, cache.block_size
        used = None
        if self.kv_share is not None and blocks:
            used = round(self.kv_share * max(blocks - 1, 1))  # block 0 is vLLM's null block
        before, after = self.preemptions_before, self.preemptions()
        return {
            "kv_share_peak": self.kv_share,
            "kv_used_blocks_peak": used,
            "num_gpu_blocks": blocks,
            "block_size": size,
            "waiting_peak": self.waiting,
            "running_peak": self.running,
            "preemptions": None if before is None or after is None else after - before,
            "reason": self.reason,
        }


def larger(a, b):
    if b is None:
        return a
    return b if a is None or b > a else a


def torch_readings(llm, reset_peak=False):
    """One reading a rank, or the reason why there is none."""
    try:
        if not hasattr(llm, "collective_rpc"):
            return torch_here(llm, reset_peak)
        return {"ranks": llm.collective_rpc("vramsweep_memory", kwargs={"reset_peak": reset_peak})}
    except Exception as error:
        return {"ranks": [], "reason": f"{type(error).__name__}: {error}"[:300]}


def torch_here(llm, reset_peak):
    """Before collective_rpc the engine runs in this process, which is its only rank if there is one GPU."""
    parallel = llm.llm_engine.parallel_config
    if parallel.tensor_parallel_size * parallel.pipeline_parallel_size > 1:
        return {"ranks": [], "reason": "this vLLM cannot be asked about its other ranks (no LLM.collective_rpc)"}
    return {"ranks": [MemoryExtension().vramsweep_memory(reset_peak)]}


def kind_of(error):
    """The kinds that the runner treats differently."""
    text = f"{type(error).__name__}: {error}"
    if "OutOfMemory" in text or "out of memory" in text:
        return "oom"
    if "EngineDead" in text or "died" in text:
        return "engine_dead"
    if isinstance(error, (ValueError, AssertionError)):
        return "bad_argument"
    return "engine_error"


def measure(pipe, llm, usage, request, disable_detokenize):
    import numpy as np
    from vllm import SamplingParams

    number, batch = request["id"], request["batch_size"]
    length, output = request["input_len"], request["output_len"]
    limit = llm.llm_engine.model_config.max_model_len
    if limit < length + output:
        raise ValueError(f"input_len {length} + output_len {output} exceed max_model_len {limit} of this engine")
    params = SamplingParams(n=1, temperature=1.0, top_p=1.0, ignore_eos=True,
                            max_tokens=output, detokenize=not disable_detokenize)
    prompts = [{"prompt_token_ids": ids} for ids in np.random.randint(VOCABULARY, size=(batch, length)).tolist()]

    def once():
        start = time.perf_counter()
        llm.generate(prompts, sampling_params=params, use_tqdm=False)
        return time.perf_counter() - start

    usage.reset()
    pipe.send("profile_start", id=number, torch=torch_readings(llm, reset_peak=True))
    for n in range(request["num_iters_warmup"]):
        pipe.send("warmup_iter", id=number, n=n + 1, latency_s=once())
    pipe.send("warmed_up", id=number, torch=torch_readings(llm))
    latencies = []
    for n in range(request["num_iters"]):
        latencies.append(once())
        pipe.send("iter", id=number, n=n + 1, latency_s=latencies[-1])
    marks = [10, 25, 50, 75, 90, 99]
    pipe.send("result", id=number, avg_latency=float(np.mean(latencies)), latencies=latencies,
              percentiles=dict(zip(map(str, marks), np.percentile(latencies, marks).tolist())),
              torch=torch_readings(llm), engine=usage.report())


def build(flags):
    """The engine, from the same flags and defaults as `vllm bench latency`."""
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs
    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:
        from vllm.utils import FlexibleArgumentParser

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(prog="vramsweep session"))
    parser.add_argument("--disable-detokenize", action="store_true")
    parser.set_defaults(enable_prefix_caching=False)
    args = parser.parse_args(flags)
    engine_args = EngineArgs.from_cli_args(args)
    if hasattr(engine_args, "worker_extension_cls") and not engine_args.worker_extension_cls:
        engine_args.worker_extension_cls = "vramsweep_driver.MemoryExtension"
    if hasattr(LLM, "from_engine_args"):
        return LLM.from_engine_args(engine_args), args
    from dataclasses import asdict
    return LLM(**asdict(engine_args)), args


def versions():
    import platform
    import torch
    import vllm
    return {"vllm_version": getattr(vllm, "__version__", None), "torch_version": torch.__version__,
            "python_version": platform.python_version()}


def check_version(vllm_version):
    parts = []
    for part in vllm_version.split(".")[:3]:
        digits = "".join(c for c in part if c.isdigit())
        parts.append(int(digits or 0))
    if parts[0] == 0 and tuple(parts) < (0, 6, 0) and "dev" not in vllm_version:
        raise RuntimeError(f"session mode needs vLLM 0.6.0 or newer; this is {vllm_version}: use mode = \"latency\"")


def serve(pipe, llm, args):
    usage = Usage(llm)
    pipe.send("ready", torch=torch_readings(llm), **versions())
    while (request := pipe.receive()) is not None and request.get("op") != "quit":
        try:
            measure(pipe, llm, usage, request, args.disable_detokenize)
        except Exception as error:
            kind = kind_of(error)
            pipe.send("error", id=request.get("id"), kind=kind, message=f"{type(error).__name__}: {error}"[:2000])
            traceback.print_exc()
            if kind != "bad_argument":
                return 1
    pipe.send("bye")
    return 0


def main():
    pipe = Pipe(int(sys.argv[1]), int(sys.argv[2]))
    try:
        check_version(versions()["vllm_version"] or "0")
        llm, args = build(sys.argv[4:])
    except BaseException as error:
        pipe.send("failed", kind=kind_of(error), message=f"{type(error).__name__}: {error}"[:2000])
        raise
    return serve(pipe, llm, args)


if __name__ == "__main__":
    sys.exit(main())
