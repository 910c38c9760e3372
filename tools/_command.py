"""What the tools share: common arguments, and errors as messages."""

import argparse
import os
import sys
from pathlib import Path

# The checkout's own package, also where it was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def run(main) -> None:
    """Run a tool; a user's mistake ends in its message and exit code 2.

    ``CONVNEXT_DENSE_DEBUG=1`` shows the Python stack as well.
    """
    try:
        from convnext_dense.errors import InputError
    except ImportError as error:  # no toolbox stack
        _fail(error)
    try:
        main()
    except InputError as error:
        _fail(error)


def _fail(error: Exception) -> None:
    if os.environ.get("CONVNEXT_DENSE_DEBUG") == "1":
        raise error
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments both toolboxes' train.py and test.py have."""
    from mmengine.config import DictAction

    class CfgOptions(DictAction):
        def __call__(self, parser, namespace, values, option_string=None):
            for value in values:
                if "=" not in value:
                    parser.error(
                        f"--cfg-options: {value!r} is not of the form key=value"
                    )
            super().__call__(parser, namespace, values, option_string)

    parser.add_argument("--work-dir", help="where the run writes its files")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=CfgOptions,
        metavar="KEY=VALUE",
        help="override settings of the config; data_root=FOLDER moves every data set",
    )
    parser.add_argument(
        "--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none"
    )
    # torch.distributed.launch passes it; torchrun sets LOCAL_RANK instead.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)


def set_local_rank(args: argparse.Namespace) -> None:
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
