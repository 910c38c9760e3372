"""Check whether training can start on this machine, and say what to do if not:
tools/doctor.py.

Looks at Python, torch, the GPU, the toolboxes, the disk and more, and trains one
step of each task. Exit code 0 if training can start, else 1. Leaves nothing behind but
compiled kernels where there is a GPU.
"""

from __future__ import annotations

import argparse
import sys

from . import examination


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # The doctor starts itself with this: a check may crash, and others follow.
    parser.add_argument("--check", nargs="+", help=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> int:
    if args.check:
        examination.check_here(args.check)
        return 0
    healthy = examination.examine([sys.executable, sys.argv[0], "--check"])
    return 0 if healthy else 1
