from vllm import OLD

if OLD:
    raise ImportError("this version has no such module")
from argparse import ArgumentParser as FlexibleArgumentParser
