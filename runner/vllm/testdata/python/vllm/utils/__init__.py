from vllm import OLD

if OLD:  # from 0.11 on it lives in argparse_utils
    from argparse import ArgumentParser as FlexibleArgumentParser
