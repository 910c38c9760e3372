"""What is in your data, and what is wrong with it: tools/inspect_data.py --data DIR.

Exit code 1 if it has errors, which stop training; warnings do not.
"""

import argparse
import sys

from _command import add_data_arguments, data_options, output_file, run


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    args = parser.parse_args()

    from convnext_dense.commands.inspect_data import inspection  # it takes seconds

    well = inspection.inspect(data_options(args), args.html, args.fix, args.seed)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    run(main)
