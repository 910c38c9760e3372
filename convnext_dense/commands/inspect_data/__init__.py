"""Show what is in a data set and what is wrong with it:
tools/inspect_data.py --data DIR.

Exit code 1 if the data has errors, which stop training; warnings do not.
"""

import argparse

from ..arguments import add_data_arguments, data_options, output_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    parser.add_argument(
        "--html", type=output_file, metavar="FILE", help="draw it, with sample images"
    )
    parser.add_argument(
        "--fix",
        metavar="FOLDER",
        help="write a cleaned copy of the annotations into a new folder",
    )
    parser.add_argument("--seed", type=int, default=0, help="of a split that is drawn")


def main(args: argparse.Namespace) -> int:
    from .inspection import inspect

    usable = inspect(data_options(args), args.html, args.fix, args.seed)
    return 0 if usable else 1
