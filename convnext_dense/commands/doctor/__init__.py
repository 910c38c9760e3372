"""Check whether this machine can train, and say how to fix each problem.

Checks Python, torch, the GPU, the toolboxes, the disk and more, and trains one step of
a detector and of a segmentor:
  convnext-dense doctor

Exit code 0 if training can start, else 1. Leaves no files behind, except compiled
kernels on a machine with a GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import all_checks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a hidden flag: with it, the doctor starts itself in a subprocess."""
    # A check that crashes ends the subprocess, and the doctor goes on.
    parser.add_argument("--check", nargs="+", help=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> int:
    """Run the checks; return 0 if training can start, else 1."""
    if args.check:
        all_checks.run_here(args.check)
        return 0
    script = str(Path(__file__).parents[3] / "convnext_dense_cli.py")
    healthy = all_checks.run_all([sys.executable, script, "doctor", "--check"])
    return 0 if healthy else 1
