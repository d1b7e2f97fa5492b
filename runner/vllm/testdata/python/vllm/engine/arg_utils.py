from dataclasses import dataclass, fields
from typing import Optional

from vllm import OLD

if OLD:
    @dataclass
    class EngineArgs:
        model: str
        tensor_parallel_size: int = 1
        max_model_len: Optional[int] = None
        enable_prefix_caching: Optional[bool] = None
else:
    @dataclass
    class EngineArgs:
        model: str
        tensor_parallel_size: int = 1
        max_model_len: Optional[int] = None
        enable_prefix_caching: Optional[bool] = None
        worker_extension_cls: str = ""


def add_cli_args(parser):
    parser.add_argument("--model")
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--enable-prefix-caching", action="store_true", default=None)
    parser.add_argument("--worker-extension-cls", default="")
    return parser


def from_cli_args(args):
    return EngineArgs(**{f.name: getattr(args, f.name) for f in fields(EngineArgs)})


EngineArgs.add_cli_args = staticmethod(add_cli_args)
EngineArgs.from_cli_args = staticmethod(from_cli_args)
