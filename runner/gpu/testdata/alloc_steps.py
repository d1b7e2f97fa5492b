#!/usr/bin/env python3
"""Allocate GPU memory in known steps, so that a sampler can be checked.

Usage: alloc_steps.py [--step-mib 2048] [--steps 8] [--hold 0.5] [--device 0]

Run it under a sampler, e.g.

    vramsweep monitor --interval 10ms --output steps -- python3 alloc_steps.py

It prints one JSON object a line, on stdout and at once:

    {"event": "context", ...}   the CUDA context is there, nothing is allocated
    {"event": "step", "n": 1, "bytes": ..., "allocated": ..., ...}   held from now on
    {"event": "freed", "n": 8, ...}
    {"event": "end", ...}

Every line has "wall" (time.time(), seconds of the wall clock: to be compared
with the ts of the samples), "mono" (time.monotonic()), "driver_used" (bytes in
use as the driver tells this process: total - free of cudaMemGetInfo; it counts
the driver's reserve as used) and "hold_s", for how long nothing changes now.
Between two lines of "step" the driver's memory.used must differ by "bytes", to
32 MiB at most. Each block is taken straight from the driver: torch's caching
allocator is bypassed by asking for blocks that are whole multiples of 2 MiB and
by one block a step, and what it reserves is printed as "reserved".
"""

import argparse
import json
import sys
import time

import torch

MIB = 1 << 20


def say(event, device, hold=0.0, **more):
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    line = {
        "event": event,
        "wall": time.time(),
        "mono": time.monotonic(),
        "driver_used": total - free,
        "allocated": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "hold_s": hold,
    }
    line.update(more)
    print(json.dumps(line), flush=True)
    time.sleep(hold)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--step-mib", type=int, default=2048)
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--hold", type=float, default=0.5, help="seconds between two steps")
    p.add_argument("--device", type=int, default=0)
    args = p.parse_args()
    if args.step_mib % 2 or args.step_mib < 2 or args.steps < 1:
        sys.exit("--step-mib must be a positive even number, --steps positive")

    device = torch.device("cuda", args.device)
    torch.cuda.set_device(device)
    props = torch.cuda.get_device_properties(device)
    size = args.step_mib * MIB

    # One kernel before the first line: the context and the library's own
    # memory must not fall into the first step.
    scratch = torch.zeros(2 * MIB, dtype=torch.uint8, device=device)
    scratch.fill_(1)
    torch.cuda.synchronize(device)
    say("context", device, args.hold, name=props.name, total=props.total_memory,
        uuid=str(getattr(props, "uuid", "")), torch=torch.__version__, step_bytes=size, steps=args.steps)

    blocks = []
    for n in range(1, args.steps + 1):
        block = torch.empty(size, dtype=torch.uint8, device=device)
        block.fill_(n)  # touched: nothing is left to be mapped later
        blocks.append(block)
        say("step", device, args.hold, n=n, bytes=size)

    block = None
    while blocks:
        n = len(blocks)
        blocks.pop()
        torch.cuda.empty_cache()
        say("freed", device, args.hold / 2, n=n, bytes=-size)
    say("end", device)


if __name__ == "__main__":
    main()
