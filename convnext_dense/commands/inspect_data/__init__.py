"""Show what a data set contains and which problems it has.

  convnext-dense inspect-data --data DIR

Exit code 1 if the data has errors, which stop training; 0 if it has warnings only.
"""

import argparse

from ..arguments import (
    add_data_arguments,
    add_overwrite_argument,
    data_options,
    output_file,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the data, and of what to write about it."""
    add_data_arguments(parser)
    parser.add_argument(
        "--html",
        type=output_file,
        metavar="FILE",
        help="write a page with figures, all problems and sample images",
    )
    parser.add_argument(
        "--fix",
        metavar="FOLDER",
        help="write a cleaned copy of the annotations into a new folder",
    )
    add_overwrite_argument(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed for drawing a validation split if the data has none (0)",
    )


def main(args: argparse.Namespace) -> int:
    """Inspect the data; returns the exit code."""
    from .inspection import inspect

    options = data_options(args)
    usable = inspect(options, args.html, args.fix, args.seed, args.overwrite)
    return 0 if usable else 1
