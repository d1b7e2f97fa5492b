"""A stand-in for vLLM, as far as the driver needs it, in the shape of the version in FAKE_VERSION."""

import os
import sys
import types
from dataclasses import asdict

__version__ = os.environ.get("FAKE_VERSION", "0.29.0")
if "FAKE_IMPORTS" in os.environ:  # who imports, and with what
    with open(os.environ["FAKE_IMPORTS"], "a", encoding="utf-8") as imports:
        print(os.getpid(), os.environ.get("FAKE_AT_IMPORT"), file=imports)
os.environ["FAKE_SET_BY_IMPORT"] = "yes"
if "FAKE_THREAD" in os.environ:
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True, name="busy").start()
if "FAKE_SOCKET" in os.environ:
    import socket
    SOCKET = socket.socket()
OLD = tuple(int(p) for p in __version__.split(".")[:3]) < (0, 7, 0)


class SamplingParams:
    def __init__(self, n, temperature, top_p, ignore_eos, max_tokens, detokenize):
        assert (n, temperature, top_p, ignore_eos) == (1, 1.0, 1.0, True), "not what `vllm bench latency` asks for"
        self.max_tokens = max_tokens


class Stats:
    kv_cache_usage, num_waiting_reqs, num_running_reqs = 0.5, 1, 2


class EngineCore:
    def get_output(self):
        return types.SimpleNamespace(scheduler_stats=Stats())


class LLM:
    def __init__(self, model, tensor_parallel_size=1, max_model_len=None, enable_prefix_caching=None, worker_extension_cls=None):
        assert enable_prefix_caching is False, "the measured prompts would come from the cache of the warm-up"
        print("INFO fake vLLM", __version__, "loads", model)
        engine = types.SimpleNamespace(model_config=types.SimpleNamespace(max_model_len=max_model_len or 4096))
        cache = types.SimpleNamespace(num_gpu_blocks=101, block_size=16)
        if OLD:  # all on the engine itself
            engine.cache_config = cache
            engine.parallel_config = types.SimpleNamespace(tensor_parallel_size=tensor_parallel_size, pipeline_parallel_size=1)
        else:
            engine.vllm_config = types.SimpleNamespace(cache_config=cache)
            engine.engine_core = EngineCore()
            module, _, name = worker_extension_cls.partition(".")
            self.worker = getattr(__import__(module), name)()
            self.collective_rpc = lambda method, kwargs: [getattr(self.worker, method)(**kwargs)]
            self.get_metrics = lambda: [types.SimpleNamespace(name="vllm:num_preemptions", value=3)]
        self.llm_engine = engine

    def generate(self, prompts, sampling_params, use_tqdm):
        assert use_tqdm is False
        lengths = {len(p["prompt_token_ids"]) for p in prompts}
        print("INFO generate", len(prompts), "x", lengths, "+", sampling_params.max_tokens, flush=True)
        if len(prompts) == 5:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if len(prompts) == 6:
            raise type("EngineDeadError", (Exception,), {})("EngineCore encountered an issue")
        if not OLD:
            self.llm_engine.engine_core.get_output()


if not OLD:
    LLM.from_engine_args = classmethod(lambda cls, engine_args: cls(**asdict(engine_args)))
sys.modules[__name__].LLM = LLM
