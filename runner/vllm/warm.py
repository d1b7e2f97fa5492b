"""A Python process that has vLLM imported and forks a child for each run: vramsweep's warm starts.

usage: python - CONTROL_FD SCRIPT     (this text on standard input)

SCRIPT is the `vllm` command or the session driver; its folder leads sys.path, as in a fresh start. After its imports
this process says on the control socket what it is ("ready") and serves requests, one JSON object a line, with the
child's descriptors beside it (SCM_RIGHTS): the gate, standard output, standard error, and those from 3 on.

A child is forked twice, so that it belongs to the runner, which is the subreaper: it is waited for, ended and cleaned
up like any program that the runner started. It waits at the gate until the runner has it, then becomes what a fresh
start would be: descriptors, environment, arguments, working folder, process group, random state. It holds nothing of
this process but what was imported.
"""

import array
import ctypes
import importlib
import json
import os
import pkgutil
import socket
import sys
import time
import traceback
import types

# What `vllm bench latency` imports before it reads its arguments. A module that this vLLM lacks is passed over.
COMMAND = ("vllm", "vllm.entrypoints.cli.main", "vllm.entrypoints.cli.*", "vllm.benchmarks.latency")
# What an engine imports. Some of it may touch the GPU: a forked process tries it first.
ENGINE = ("vllm.entrypoints.llm", "vllm.v1.engine.llm_engine", "vllm.v1.engine.core",
          "vllm.v1.executor.uniproc_executor", "vllm.v1.executor.multiproc_executor", "vllm.compilation.backends",
          "vllm.v1.worker.{worker}_worker")

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
SIGTERM = 15
GPU_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/davinci", "/dev/accel")


class Reads(type(os.environ)):
    """os.environ that notes which names are asked for by name. A copy of all of it asks for none."""

    def __getitem__(self, name):
        if self.copying and self.copying[-1] == name:
            self.copying.pop()  # dict(os.environ) takes keys(), then each of them in turn
        else:
            self.asked.add(name)
            self.copying.clear()
        return super().__getitem__(name)

    def keys(self):
        names = list(super().keys())
        self.copying[:] = reversed(names)
        return names

    def copy(self):
        return {name: super(Reads, self).__getitem__(name) for name in self}

    def items(self):
        return self.copy().items()

    def values(self):
        return self.copy().values()


def import_all(names):
    """Imports what there is of modules and says why another is not; "x.*" is every module below x."""
    failed = {}
    for name in names:
        try:
            module = importlib.import_module(name.removesuffix(".*"))
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:200]
            continue
        if name.endswith(".*"):
            failed.update(import_all([m.name for m in pkgutil.walk_packages(module.__path__, name[:-1])]))
    return failed


def import_vllm(inherited):
    """Imports what runs need. Returns vLLM's name of its device and why runs cannot be forked, "" where they can."""
    failed = import_all(COMMAND)
    if "vllm" in failed:
        return None, "vLLM cannot be imported: " + failed["vllm"]
    try:
        device = importlib.import_module("vllm.platforms").current_platform.device_type
    except Exception:
        device = None
    reason = why_not(inherited, device)
    engine = [name.format(worker={"cuda": "gpu"}.get(device, device)) for name in ENGINE]
    if not reason and not forked(lambda: (import_all(engine), why_not(inherited, device))[1]):
        import_all(engine)
    return device, reason


def descriptors():
    """What each open descriptor from 3 on is, but for the one that lists them."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2:
                found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass
    return {fd: what for fd, what in found.items() if not what.startswith(f"/proc/{os.getpid()}/fd")}


def why_not(inherited, device):
    """Why this process must not be forked; "" if nothing speaks against it. inherited are descriptors it began with."""
    for fd, what in descriptors().items():
        if what.startswith(GPU_DEVICES):
            return f"importing vLLM opened the GPU ({what})"
        if inherited.get(fd) != what and not what.startswith("/"):
            return f"importing vLLM left a descriptor open that children would share ({what})"
    threading = sys.modules.get("threading")
    if threading and threading.active_count() > 1:
        names = ", ".join(t.name for t in threading.enumerate()[1:])
        return f"importing vLLM started threads ({names})"
    if device == "cpu":
        return ""  # this vLLM uses no GPU, whatever torch was asked about one
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if hasattr(cuda, "is_initialized") and cuda.is_initialized():
        return "importing vLLM initialised CUDA"
    if hasattr(cuda, "_is_in_bad_fork") and forked(cuda._is_in_bad_fork):
        return "importing vLLM touched CUDA: torch would refuse to use it in a forked process"
    return ""


def forked(question):
    """Whether question is true of a forked process, or ends it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 1 if question() else 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] != 0


def memory():
    """Resident and proportional size of this process in bytes; null where the kernel does not tell it."""
    sizes = {"rss_bytes": None, "pss_bytes": None}
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
            for line in lines:
                words = line.split()
                if words[0] in ("Rss:", "Pss:"):
                    sizes[words[0][:3].lower() + "_bytes"] = int(words[1]) << 10
    except OSError:
        pass
    return sizes


class Control:
    """The socket to the runner."""

    def __init__(self, fd):
        os.set_inheritable(fd, False)
        self.socket = socket.socket(fileno=fd)
        self.rest = b""

    def send(self, event, **fields):
        self.socket.sendall(json.dumps({"event": event, **fields}).encode() + b"\n")

    def receive(self):
        """The next request and its descriptors; None at the end."""
        fds = array.array("i")
        while b"\n" not in self.rest:
            data, ancillary, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(16 * fds.itemsize))
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
            if not data:
                return None, []
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line), list(fds)


class Mark:
    """The run's mark in /proc/PID/environ, which shows the environment of the last execve: written in place."""

    def __init__(self, name):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.getenv.restype = ctypes.c_void_p
        self.at = self.libc.getenv(name.encode())
        self.room = len(os.environ[name])

    def write(self, mark):
        data = mark.encode()
        if len(data) > self.room:
            raise ValueError(f"the mark of a run has {len(data)} bytes, there is room for {self.room}")
        ctypes.memmove(self.at, data.ljust(self.room, b"\0"), self.room)


def take_descriptors(fds):
    """Makes fds[0] the gate, the others descriptors 1, 2, 3, ..., and standard input empty. Returns the gate."""
    import fcntl
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in fds]
    for fd in fds:
        os.close(fd)
    for target, fd in enumerate(high[1:], 1):
        os.dup2(fd, target, inheritable=True)
        os.close(fd)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0, inheritable=True)
    os.close(null)
    return high[0]


def set_environment(wanted, imported):
    """The run's environment, with what the imports themselves set (or, None, took away)."""
    wanted = {**wanted, **imported}
    for name in list(os.environ):
        if wanted.get(name) is None:
            del os.environ[name]
    for name, value in wanted.items():
        if value is not None and os.environ.get(name) != value:
            os.environ[name] = value


def reseed():
    """Random state of its own: Python's random sees to itself, numpy's and the keys of multiprocessing do not."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None:
        multiprocessing.current_process().authkey = os.urandom(32)


def become(request, fds, mark, imported, paths):
    """Makes this forked process the run that is asked for."""
    os.setpgid(0, 0)
    mark.write(request["mark"])
    gate = take_descriptors(fds)
    if os.read(gate, 1) != b"g":
        os._exit(125)  # the runner is gone
    os.close(gate)
    mark.libc.prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0)
    if os.getppid() != request["runner"]:
        os._exit(125)
    argv = request["argv"]
    mark.libc.prctl(PR_SET_NAME, os.path.basename(argv[0]).encode()[:15], 0, 0, 0)
    set_environment(dict(pair.split("=", 1) for pair in request["env"]), imported)
    if request.get("dir"):
        os.chdir(request["dir"])
    sys.argv, sys.orig_argv = argv, [sys.executable, *argv]
    own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [os.path.dirname(argv[0])] + own + [path for path in sys.path[1:] if path not in paths]
    importlib.invalidate_caches()
    reseed()
    return argv[0]


def fork_run(control, request, fds, mark, imported, paths):
    """Forks the run. Returns its script in the child, None in this process."""
    read, write = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            pid = os.fork()
            if pid != 0:
                os.write(write, str(pid).encode())
        except OSError:  # no process is left to be had: the parent reports it
            os._exit(1)
        if pid != 0:
            os._exit(0)
        try:
            os.close(read)
            os.close(write)
            control.socket.close()
            return become(request, fds, mark, imported, paths)
        except BaseException:
            traceback.print_exc()
            os._exit(125)
    os.close(write)
    for fd in fds:
        os.close(fd)
    os.waitpid(between, 0)  # from now on the child is the runner's
    pid = os.read(read, 32)
    os.close(read)
    if pid:
        control.send("forked", pid=int(pid), **memory())
    else:
        control.send("failed", message="the process that forks the run ended before it had")
    return None


def serve(control, mark, imported, paths):
    """Forks runs until the runner closes the socket. Returns the script of a run in its process."""
    while True:
        request, fds = control.receive()
        if request is None:
            os._exit(0)
        try:
            script = fork_run(control, request, fds, mark, imported, paths)
        except OSError as error:
            control.send("failed", message=f"fork: {error}")
            continue
        if script is not None:
            return script


def main():
    control, script = Control(int(sys.argv[1])), sys.argv[2]
    mark = Mark("VRAMSWEEP_RUN")
    before, paths, plain = dict(os.environ), os.environ.get("PYTHONPATH", "").split(os.pathsep), type(os.environ)
    sys.argv, sys.path[0] = [script], os.path.dirname(script)
    Reads.asked, Reads.copying, os.environ.__class__ = set(), [], Reads
    began = time.monotonic()
    device, reason = import_vllm(descriptors())
    took, os.environ.__class__ = time.monotonic() - began, plain
    after = dict(os.environ)
    imported = {name: after.get(name) for name in {*before, *after} if before.get(name) != after.get(name)}
    control.send("ready", import_s=took, why_not=reason, asked=sorted(n for n in Reads.asked if isinstance(n, str)),
                 device=device, threads=len(os.listdir("/proc/self/task")), **memory())
    return serve(control, mark, imported, paths)


def run(script):
    """Executes a script as python does."""
    module = types.ModuleType("__main__")
    module.__file__, module.__builtins__ = script, __builtins__
    sys.modules["__main__"] = module
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec")
    exec(code, module.__dict__)


if __name__ == "__main__":
    run(main())
