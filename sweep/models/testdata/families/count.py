"""Counts the parameters of a model's module tree, on the meta device.

usage: python count.py vllm DIR > vllm.json                     (a vLLM for CPUs)
       python count.py transformers DIR > transformers.json     (torch and transformers)

Of each DIR/<type>/config.json the class is made that runs it, and its distinct
parameters are added up: vLLM's own, or transformers' where vLLM hands over to it
(TransformersForCausalLM) or its class asks for a GPU. SHAPES=FOLDER writes there
which parameters there are. A class that cannot be made has its error in place of a count.
"""

import importlib.abc
import importlib.machinery
import importlib.metadata as metadata
import json
import multiprocessing
import os
import pathlib
import sys
import unittest.mock

os.environ.update(HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", VLLM_CPU_KVCACHE_SPACE="1")


def summed(model) -> int:
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for the kernels' packages of GPUs, which a module tree only imports."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "cutlass" else None

    def create_module(self, spec):
        return unittest.mock.MagicMock(name=spec.name, __path__=[], __spec__=spec)

    def exec_module(self, module):
        pass


def of_vllm(path: str):
    sys.meta_path.append(Absent())
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import get_model_architecture, initialize_model
    from vllm.platforms.cpu import CpuPlatform

    choose = CpuPlatform.get_attn_backend_cls

    def dense(cls, selected_backend, attn_selector_config, *rest, **more):
        """No kernel runs on meta: the dense backend stands for the sparse one."""
        return choose(selected_backend, attn_selector_config._replace(use_sparse=False), *rest, **more)

    CpuPlatform.get_attn_backend_cls = classmethod(dense)

    asked = dict(model=path, load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16", max_model_len=1024,
                 enforce_eager=True)
    try:
        config = EngineArgs(**asked).create_engine_config()
    except ValueError:  # the states of KDA
        config = EngineArgs(**asked, enable_prefix_caching=False).create_engine_config()
    torch.nn.Module.to = lambda self, *args, **more: self  # there is nothing to copy
    torch.Tensor.item = lambda self: 1.0  # nor to read
    torch.cuda.Stream = torch.cuda.Event = unittest.mock.MagicMock
    with set_current_vllm_config(config):
        init_distributed_environment(1, 0, "tcp://127.0.0.1:%d" % (20000 + os.getpid() % 20000), 0, "gloo")
        initialize_model_parallel(1, 1)
        name = get_model_architecture(config.model_config)[0].__name__
        if name.startswith("Transformers"):
            raise NotImplementedError(f"vLLM hands it to {name}")
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("meta"):
            model = initialize_model(config)
    return model, name


def of_transformers(path: str):
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(path)
    with torch.device("meta"):
        try:
            model = transformers.AutoModelForCausalLM.from_config(config)
        except ValueError:
            model = transformers.AutoModelForImageTextToText.from_config(config)
    return model, type(model).__name__


def one(tree: str, path: str) -> dict:
    try:
        model, name = {"vllm": of_vllm, "transformers": of_transformers}[tree](path)
    except BaseException as e:  # the next one may be made
        return {"failed": f"{type(e).__name__}: {e}"[:300]}
    if "SHAPES" in os.environ:
        lines = [f"{key} {list(p.shape)} {p.dtype}" for key, p in model.named_parameters()]
        pathlib.Path(os.environ["SHAPES"], pathlib.Path(path).name).write_text("\n".join(lines))
    return {"class": name, "params": summed(model)}


def child(tree: str, path: str, pipe) -> None:
    pipe.send(one(tree, path))
    pipe.close()


def counted(tree: str, path: str) -> dict:
    """Counts in a process of its own: vLLM initializes its groups once a process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(tree, path, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return {"failed": "it ended without an answer"}
    finally:
        process.join()


def main(tree: str, folder: pathlib.Path) -> None:
    import transformers  # noqa: F401  once, before the forks

    if tree == "vllm":
        import vllm.model_executor.model_loader.utils  # noqa: F401

    counts = {}
    for path in sorted(folder.glob("*/config.json")):
        counts[path.parent.name] = counted(tree, str(path.parent))
        print(path.parent.name, counts[path.parent.name], file=sys.stderr, flush=True)
    names = [name for name in ("vllm", "torch", "transformers") if name in (tree, "torch", "transformers")]
    versions = {name: metadata.version(name) for name in names}
    json.dump({"tree": tree, "versions": versions, "counts": counts}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
