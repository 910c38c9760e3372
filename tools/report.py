"""A page about a run: tools/report.py WORK_DIR [options].

Curves, classes, confusion, best and worst images. Training ends with it; this
makes it again, of a run that was stopped or of another checkpoint.
"""

import argparse

from _command import (
    add_options_argument,
    add_trust_argument,
    apply_trust,
    output_file,
    run,
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work_dir", help="of the run")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="instead of the best or the last one"
    )
    parser.add_argument(
        "--out", type=output_file, metavar="FILE", help="default: WORK_DIR/report.html"
    )
    add_options_argument(parser)
    add_trust_argument(parser)
    args = parser.parse_args()
    apply_trust(args)

    from convnext_dense.commands.report import finished  # after the arguments: seconds

    finished.report(args.work_dir, args.checkpoint, args.out, args.cfg_options)


if __name__ == "__main__":
    run(main)
