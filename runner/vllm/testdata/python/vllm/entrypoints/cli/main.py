"""A stand-in for `vllm bench latency`: it says what it finds of its process, and misbehaves as FAKE_RUN tells."""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import time

import numpy
import vllm  # noqa: F401


def process():
    """What a run can see of how it was started."""
    with open("/proc/self/environ", "rb") as file:
        marks = [e.decode() for e in file.read().split(b"\0") if e.startswith(b"VRAMSWEEP_RUN=")]
    fds = {int(fd): os.path.exists(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
    names = ("FAKE_AT_RUN", "FAKE_SET_BY_IMPORT", "VRAMSWEEP_RUN", "PYTHONUNBUFFERED")
    return {
        "pid": os.getpid(), "ppid": os.getppid(), "pgid": os.getpgid(0), "sid": os.getsid(0), "cwd": os.getcwd(),
        "argv0": os.path.basename(sys.argv[0]), "path0": sys.path[0], "marks": marks, "stdin": os.readlink("/proc/self/fd/0"),
        "fds": sorted(fd for fd, there in fds.items() if there and fd < 64), "umask": os.umask(0o22),
        "env": {name: os.environ.get(name) for name in names}, "main": sys.modules["__main__"].__file__,
        "spawn": os.environ.get("VLLM_WORKER_MULTIPROC_METHOD"), "draw": random.random(), "numpy_draw": numpy.random.drawn(),
        "threads": len(os.listdir("/proc/self/task")),
    }


def engine(how):
    print("INFO 01-01 00:00:00 [core.py:93] Initializing a V1 LLM engine (v0.29.0) with config: model='fake'", flush=True)
    if how == "orphan" and os.fork() == 0:
        os.setsid()
        for fd in range(3):
            os.close(fd)
        time.sleep(600)
    if how == "hang":
        signal.pause()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--output-json")
    args, _ = parser.parse_known_args()
    method = os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    how = os.environ.get("FAKE_RUN", "")
    print("PROCESS", json.dumps(process()), flush=True)
    if how == "fork-fails" and method == "fork":
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use "
                           "the 'spawn' start method")
    worker = multiprocessing.get_context(method).Process(target=engine, args=(how,))
    worker.start()
    worker.join()
    print("INFO 01-01 00:00:00 [core.py:400] init engine (profile, create kv cache, warmup model) took 1 s", flush=True)
    print("Warming up...", flush=True)
    with open(args.output_json, "w", encoding="utf-8") as file:
        json.dump({"avg_latency": 0.5, "latencies": [0.5, 0.5], "percentiles": {"50": 0.5}}, file)
