"""A page about a run: tools/report.py WORK_DIR [options].

Curves, classes, confusion, best and worst images. Training ends with it; this
makes it again, of a run that was stopped or of another checkpoint.
"""

import argparse

from ..arguments import (
    add_options_argument,
    add_trust_argument,
    apply_trust,
    output_file,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("work_dir", help="of the run")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="instead of the best or the last one"
    )
    parser.add_argument(
        "--out", type=output_file, metavar="FILE", help="default: WORK_DIR/report.html"
    )
    add_options_argument(parser)
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    apply_trust(args)

    from .finished import report

    report(args.work_dir, args.checkpoint, args.out, args.cfg_options)
