"""Write the report of a run: one HTML page, made from the run's work dir.

The page shows the learning curves and, of one validation, the results of each class,
the confusion matrix and the best and worst images. Training writes it when it ends.
This command writes it for a run that was stopped, or for another checkpoint:
  convnext-dense report WORK_DIR
  convnext-dense report WORK_DIR --checkpoint FILE --out FILE
"""

import argparse

from ..arguments import (
    add_options_argument,
    add_overwrite_argument,
    add_trust_argument,
    apply_trust,
    output_file,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the work dir, the checkpoint, the output file and the common flags."""
    parser.add_argument("work_dir", help="work dir of the run")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="checkpoint to validate (default: the best one in the work dir, or else "
        "the last)",
    )
    parser.add_argument(
        "--out",
        type=output_file,
        metavar="FILE",
        help="HTML file to write (WORK_DIR/report.html, which replaces an earlier "
        "report)",
    )
    add_overwrite_argument(parser)
    add_options_argument(parser)
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    """Validate a checkpoint of the run and write the page."""
    apply_trust(args)

    from .write_report import write_report

    write_report(
        args.work_dir, args.checkpoint, args.out, args.cfg_options, args.overwrite
    )
