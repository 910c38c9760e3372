"""Arguments that several commands have."""

import argparse
import os
from pathlib import Path


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments both toolboxes' train.py and test.py have."""
    parser.add_argument("--work-dir", help="where the run writes its files")
    add_options_argument(parser)
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
    if Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder")
    return path


def positive(text: str) -> int:
    """An argument's type: a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def add_data_arguments(parser: argparse.ArgumentParser):
    """The flags of ``datasets.custom.prepare.Options``; returns their group."""
    group = parser.add_argument_group(
        "your own data",
        "a COCO file, or folders of images and of label maps (PNG); without a "
        "validation split a fifth of the images, drawn by seed, is one",
    )
    group.add_argument("--data", metavar="DIR", help="both splits, by their layout")
    for split in ("train", "val"):
        group.add_argument(f"--{split}-json", metavar="FILE", help="COCO annotations")
        group.add_argument(f"--{split}-images", metavar="DIR")
        group.add_argument(f"--{split}-labels", metavar="DIR", help="label maps")
    group.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="of the labels 0, 1, ..., or a file with a name a line; counted if not "
        "given",
    )
    group.add_argument(
        "--color-map",
        metavar="FILE",
        help='for label maps in colours: a line such as "128 64 128 road" for each '
        "class; those of the name ignore are not trained on",
    )
    group.add_argument(
        "--reduce-zero-label",
        action="store_true",
        help="label 0 is not a class but ignored, as 255 is; 1 is the first class",
    )
    group.add_argument(
        "--boxes-only", action="store_true", help="take no notice of masks"
    )
    return group


def data_options(args: argparse.Namespace):
    """The ``Options`` of the arguments that ``add_data_arguments`` adds."""
    from dataclasses import fields

    from convnext_dense.datasets.custom.prepare import Options

    return Options(**{f.name: getattr(args, f.name) for f in fields(Options)})


def add_options_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        metavar="KEY=VALUE",
        help="override settings of the config; data_root=FOLDER moves every data set",
    )


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
