"""What sampling costs the measured latency: blocks of ten iterations with and without, interleaved on one engine; one JSON line a block.

usage: overhead.py DRIVER GPU MODEL GATE BLOCKS:INTERVAL...
"""
import json, os, subprocess, sys, time
here = os.path.dirname(os.path.abspath(__file__))
driver, gpu, model, gate = sys.argv[1:5]
r1, w1 = os.pipe(); r2, w2 = os.pipe()
for fd in (r1, w2): os.set_inheritable(fd, True)
env = dict(os.environ, CUDA_VISIBLE_DEVICES=gpu, CUDA_DEVICE_ORDER="PCI_BUS_ID", PYTHONPATH=os.path.dirname(driver))
p = subprocess.Popen([os.path.join(here, "vpython"), driver, str(r1), str(w2), "--", "--model", model, "--load-format", "dummy", "--skip-tokenizer-init",
    "--disable-detokenize", "--max-model-len", "4096", "--gpu-memory-utilization", "0.85"], env=env, pass_fds=(r1, w2), stdout=open("/tmp/overhead-engine.log", "w"), stderr=subprocess.STDOUT)
os.close(r1); os.close(w2); f = os.fdopen(r2)
def ask(n, warm, iters):
    os.write(w1, (json.dumps(dict(id=n, op="profile", input_len=512, output_len=64, batch_size=8, num_iters_warmup=warm, num_iters=iters)) + "\n").encode())
    for line in f:
        e = json.loads(line)
        if e["event"] in ("result", "error", "failed"): return e
    return {"event": "gone"}
for line in f:
    e = json.loads(line)
    if e["event"] in ("ready", "failed"): break
print(json.dumps(e), file=sys.stderr, flush=True)
ask(0, 3, 5)
while not os.path.exists(gate): time.sleep(0.2)
ask(0, 3, 5); n = 0
for spec in sys.argv[5:]:
    blocks, interval = spec.split(":")
    for block in range(int(blocks)):
        for mode in (("off", "on") if block % 2 == 0 else ("on", "off")):
            s = None
            if mode == "on":
                s = subprocess.Popen([os.path.join(here, "vramsweep"), "monitor", "--interval", interval, "--gpus", gpu, "--output", "/tmp/overhead-results", "--", "sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(1.0)
            n += 1; e = ask(n, 1, 10)
            if s: s.terminate(); s.wait()
            print(json.dumps({"block": block, "interval": interval, "sampling": mode, "latencies": e.get("latencies"), "event": e["event"], "message": e.get("message")}), flush=True)
os.write(w1, b'{"op":"quit"}\n'); p.wait()
