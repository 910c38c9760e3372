"""Arguments that several commands have, and types of arguments."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported when needed: they import torch
    from mmengine.config import Config
    from mmengine.hooks import Hook

    from convnext_dense.datasets.custom.prepare import Options

CONFIG = (
    "config file (.py) of an MMDetection or MMSegmentation model, or a name that "
    "convnext-dense configs lists"
)
CONFIG_OR_RUN = f"{CONFIG}; or, alone, the work dir of a run"
CHECKPOINT = "checkpoint: a path, a work dir, a URL or hf://OWNER/NAME"


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that both toolboxes' train.py and test.py have."""
    parser.add_argument(
        "--work-dir",
        metavar="DIR",
        help="folder for the run's logs and checkpoints (work_dirs/CONFIG_NAME, "
        "unless the config sets work_dir)",
    )
    add_options_argument(parser)
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="how the processes of a distributed run were started: pytorch (torchrun), "
        "slurm (srun), mpi (mpirun), or none (a single process)",
    )
    add_trust_argument(parser)
    # torch.distributed.launch passes it; torchrun sets LOCAL_RANK instead.
    parser.add_argument(
        *("--local_rank", "--local-rank"), type=int, default=0, help=argparse.SUPPRESS
    )


def add_everyday_arguments(parser: argparse.ArgumentParser, training: bool) -> None:
    """Add the flags for settings that users change most, for ``config.flags``.

    Args:
        training: whether to add those that only training has.
    """
    group = parser.add_argument_group(
        "settings of the config",
        "Each flag stands for --cfg-options; the log says what it changes.",
    )
    split = "train" if training else "test"
    group.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help=f"images of a step on each GPU ({split}_dataloader.batch_size)"
        + ("; --auto-scale-lr lets the learning rate follow it" if training else ""),
    )
    if training:
        group.add_argument(
            "--lr",
            type=positive_float,
            metavar="RATE",
            help="learning rate (optim_wrapper.optimizer.lr); with layer decay, that "
            "of the last layer",
        )
    group.add_argument(
        "--workers",
        type=not_negative,
        metavar="N",
        help="processes on each GPU that load images (num_workers of the dataloaders); "
        "0 loads them in the process itself",
    )
    if training:
        group.add_argument(
            "--seed",
            type=seed,
            metavar="N",
            help="seed of the random numbers (randomness.seed)",
        )
    group.add_argument(
        "--image-size",
        type=positive,
        nargs="+",
        action=_ImageSize,
        metavar="PIXELS",
        help="short side, or height and width, of the images on which the config "
        "trains; all sizes of its pipelines are scaled with it",
    )
    group.add_argument(
        "--device",
        choices=["cpu", "cuda", "mps"],
        help="where to compute (default: a GPU if there is one, else the CPU); "
        "CUDA_VISIBLE_DEVICES chooses among several GPUs",
    )
    if training:
        group.add_argument(
            "--load-from",
            metavar="CKPT",
            help="weights to start from (load_from): a path, a work dir, a URL or "
            "hf://OWNER/NAME",
        )


class _ImageSize(argparse.Action):
    """One or two numbers."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: "str | Sequence[Any] | None",
        option_string: str | None = None,
    ) -> None:
        """Refuse more than two numbers."""
        if len(values or ()) > 2:
            raise argparse.ArgumentError(self, "give one number, or height and width")
        setattr(namespace, self.dest, values)


def everyday_flags(args: argparse.Namespace) -> dict[str, object]:
    """The values of ``add_everyday_arguments``'s flags that are settings."""
    names = ("batch_size", "lr", "workers", "seed", "image_size", "load_from")
    return {name: getattr(args, name) for name in names if name in args}


def output_file(path: str) -> str:
    """Argument type: the path of a file to write, in a folder that exists."""
    folder = Path(path).absolute().parent
    # Not Path.is_dir, which raises an error for a name that is too long.
    if not os.path.isdir(folder):
        raise argparse.ArgumentTypeError(f"there is no folder {folder}")
    if os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{path} is a folder: name a file")
    return path


def add_overwrite_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``, for ``utils.outputs.check``."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace output files that exist; without it, the command ends before it "
        "does anything",
    )


def _whole(text: str) -> int:
    """A whole number; argparse would name the function that cannot read another."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number") from None


def positive(text: str) -> int:
    """Argument type: a whole number, 1 or larger."""
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def not_negative(text: str) -> int:
    """Argument type: a whole number, 0 or larger."""
    number = _whole(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def seed(text: str) -> int:
    """Argument type: a seed that NumPy's generator takes, 0 to 2**32 - 1."""
    number = not_negative(text)
    if number >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not below 2**32")
    return number


def positive_float(text: str) -> float:
    """Argument type: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def add_data_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the flags of ``datasets.custom.prepare.Options``; return their group."""
    group = parser.add_argument_group(
        "custom data",
        "Your own images, annotated by a COCO json (boxes and masks) or by label maps\n"
        "(images whose pixel values are classes). Give --data, or the files and\n"
        "folders of each split. Without a validation split, a random fifth of the\n"
        "training images is held out for validation.",
    )
    group.add_argument(
        "--data",
        metavar="DIR",
        help="folder with the whole data set (COCO, YOLO, Pascal VOC, labelme, or "
        "label maps), or a data.yaml; its splits are found by the usual names, such "
        "as train/, val/, images/, labels/, annotations/",
    )
    for split, title in ("train", "training"), ("val", "validation"):
        group.add_argument(
            f"--{split}-json",
            metavar="FILE",
            help=f"COCO json that annotates the {title} images",
        )
        group.add_argument(
            f"--{split}-images",
            metavar="DIR",
            help=f"folder of the {title} images",
        )
        group.add_argument(
            f"--{split}-labels",
            metavar="DIR",
            help=f"folder of the {title} images' label maps (PNG, TIFF, BMP, GIF or "
            "NumPy files); it may be the folder of the images",
        )
    group.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="class names of the labels 0, 1, ..., or VALUE:NAME for each class, or "
        "one file: a name on each line, values and names, Roboflow's _classes.csv, "
        "labelme's labels.txt, JSON or YAML (default: classes are numbered, as many as "
        "the label maps hold)",
    )
    group.add_argument(
        "--color-map",
        metavar="FILE",
        help="for label maps in colors: a file with a line R G B NAME for each class, "
        'such as "128 64 128 road", or CVAT\'s labelmap.txt; pixels of a class named '
        '"ignore" are not used',
    )
    group.add_argument(
        "--reduce-zero-label",
        action="store_true",
        help="ignore the pixels of label 0, like those of 255; label 1 becomes the "
        "first class",
    )
    group.add_argument(
        "--boxes-only",
        action="store_true",
        help="use the boxes of the COCO json and ignore its masks",
    )
    group.add_argument(
        "--allow-dropped",
        action="store_true",
        help="train although objects must be left out of images that stay, such as "
        "those without a box; the model learns that they are background",
    )
    return group


def data_options(args: argparse.Namespace) -> "Options":
    """The values of the flags that ``add_data_arguments`` adds."""
    from convnext_dense.datasets.custom.prepare import Options

    names = (field.name for field in fields(Options))
    return Options(**{name: getattr(args, name) for name in names})


def add_options_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, for ``config.options.load_config``."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        metavar="KEY=VALUE",
        help="override settings of the config, such as "
        "optim_wrapper.optimizer.lr=1e-4; data_root=DIR moves every data set of the "
        "config to DIR",
    )


def add_tile_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--tile`` and ``--overlap``, for ``engine.tiling.grid.read_flags``."""
    parser.add_argument(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="predict large images in square tiles of this side, such as 1024, and "
        "merge the results",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="the share of a tile that its neighbour also covers, 0 or more and below "
        "1 (0.2); make it as large as the largest object",
    )


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-checkpoint``, for ``apply_trust``."""
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="let checkpoint files run the Python code inside them; only for files "
        "whose author you trust",
    )


def add_tracker_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``engine.trackers.use_trackers``."""
    group = parser.add_argument_group(
        "trackers",
        "Curves, config, pictures of predictions and the report of a run.",
    )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="write event files into WORK_DIR/tensorboard",
    )
    group.add_argument(
        "--wandb",
        nargs="?",
        const="",
        metavar="PROJECT",
        help="log to Weights & Biases (project convnext_dense); WANDB_MODE=offline "
        "writes into WORK_DIR/wandb",
    )
    group.add_argument(
        "--mlflow",
        nargs="?",
        const="",
        metavar="URI",
        help="log to MLflow: the address of a server, or a database such as "
        "sqlite:///mlflow.db (WORK_DIR/mlflow.db, unless MLFLOW_TRACKING_URI is set)",
    )


def use_trackers(args: argparse.Namespace, cfg: "Config", mode: str) -> list["Hook"]:
    """Apply the flags of ``add_tracker_arguments``; return the hooks for the run."""
    from convnext_dense.engine import trackers

    return trackers.use_trackers(cfg, mode, args.tensorboard, args.wandb, args.mlflow)


def apply_common_arguments(args: argparse.Namespace) -> None:
    """Set the environment variables that ``add_common_arguments``'s flags stand for."""
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    apply_trust(args)


def apply_trust(args: argparse.Namespace) -> None:
    """Set ``CONVNEXT_DENSE_TRUST_CHECKPOINT`` if ``--trust-checkpoint`` was given."""
    if args.trust_checkpoint:
        os.environ["CONVNEXT_DENSE_TRUST_CHECKPOINT"] = "1"
