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
        main()
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # InputError has one
        if exit_code is None or os.environ.get("CONVNEXT_DENSE_DEBUG") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(exit_code)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments both toolboxes' train.py and test.py have."""
    parser.add_argument("--work-dir", help="where the run writes its files")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        metavar="KEY=VALUE",
        help="override settings of the config; data_root=FOLDER moves every data set",
    )
    parser.add_argument(
        "--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none"
    )
    add_trust_argument(parser)
    # torch.distributed.launch passes it; torchrun sets LOCAL_RANK instead.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)


def output_file(path: str) -> str:
    """An argument's type: a file that can be written later."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {folder}")
    return path


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="let checkpoint files run code, for those who must",
    )


def apply_common_arguments(args: argparse.Namespace) -> None:
    """Those that go into the environment."""
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    apply_trust(args)


def apply_trust(args: argparse.Namespace) -> None:
    if args.trust_checkpoint:
        os.environ["CONVNEXT_DENSE_TRUST_CHECKPOINT"] = "1"
