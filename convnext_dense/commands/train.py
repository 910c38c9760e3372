"""Train a detector or a segmentor.

Reproduce a config:
  convnext-dense train configs/det/cascade_mask_rcnn_convnext_t_coco.py

Train on your own images. The config's classes, heads and schedule are set to fit them:
  convnext-dense train CONFIG --data DIR
  convnext-dense train CONFIG --train-json FILE --train-images DIR      (COCO json)
  convnext-dense train CONFIG --train-images DIR --train-labels DIR     (label maps)
"""

import argparse
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import (
    CONFIG,
    add_common_arguments,
    add_data_arguments,
    add_everyday_arguments,
    add_tracker_arguments,
    apply_common_arguments,
    data_options,
    everyday_flags,
    positive,
    use_trackers,
)

if TYPE_CHECKING:  # imported when needed: they import torch
    from mmengine.config import Config

    from convnext_dense.datasets.custom.prepare import Options

# The checkpoints that a run writes into its work dir, and the files of custom data.
CHECKPOINTS = re.compile(r"(epoch_|iter_|best_).*\.pth")
DATA_FILES = ("train.json", "val.json", "data.json", "inspection.txt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of mmdet's and mmseg's train.py, and those for custom data."""
    parser.add_argument("config", help=CONFIG)
    parser.add_argument(
        "--amp",
        action="store_true",
        help="mixed precision on a GPU; a CPU trains in fp32",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by (total batch size) / (the config's "
        "auto_scale_lr.base_batch_size)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CKPT",
        help="resume a run from the checkpoint CKPT; without CKPT, from the newest "
        "checkpoint in the work dir",
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="do not train: run one saved batch again whose loss or gradient was not "
        "finite; FILE is WORK_DIR/not_finite/iter_N.pth",
    )
    add_common_arguments(parser)
    add_tracker_arguments(parser)
    add_everyday_arguments(parser, training=True)
    add_data_arguments(parser).add_argument(
        "--epochs",
        type=positive,
        metavar="N",
        help="how long to train on custom data (default: set by its size)",
    )


def main(args: argparse.Namespace) -> None:
    """Turn the flags into settings of the config, and train."""
    apply_common_arguments(args)

    from convnext_dense.config import cfg_options, options
    from convnext_dense.config.flags import use_flags
    from convnext_dense.config.trained import checkpoint_of
    from convnext_dense.config.work_dir import check_config_file
    from convnext_dense.datasets.custom.option_settings import take_epochs
    from convnext_dense.datasets.custom.prepare import check_options, prepare
    from convnext_dense.engine import runner
    from convnext_dense.errors import InputError
    from convnext_dense.patches.chosen_device import chosen_device

    data, epochs = data_options(args), args.epochs
    settings = args.cfg_options or []
    if data:
        settings, epochs = take_epochs(settings, epochs)
    cfg = options.load_config(args.config, settings, args.work_dir, args.launcher)
    if args.load_from and args.resume:
        raise InputError(
            "--load-from starts a new run, and --resume continues one: to continue, "
            "leave out --load-from"
        )
    flags = everyday_flags(args)
    if args.load_from:
        flags["load_from"] = checkpoint_of(args.load_from)
    command_line = use_flags(cfg, flags, cfg_options.parse(settings), ("train", "val"))
    if args.amp:
        options.use_amp(cfg)
    if args.auto_scale_lr:
        options.use_auto_scale_lr(cfg)
    if args.replay:
        runner.replay(cfg, args.replay)
        return
    if args.resume:
        options.use_resume(cfg, args.resume)
    if args.epochs and not data:
        raise InputError(
            "--epochs works with custom data only (--data, --train-json, "
            "--train-labels). For the config's data set, use --cfg-options "
            "train_cfg.max_epochs=N or train_cfg.max_iters=N"
        )
    check_config_file(cfg)
    # A run that goes on keeps the splits that it has read.
    if data and not (cfg.get("resume") and _splits_file(cfg).is_file()):
        check_options(data, cfg)
    _check_outputs(cfg, data)
    fit = partial(prepare, cfg, data, epochs, command_line.settings)
    hooks = use_trackers(args, cfg, "train")
    with chosen_device(args.device):
        runner.run(
            cfg, "train", fit if data else None, hooks, command_line=command_line
        )


def _splits_file(cfg: "Config") -> Path:
    """The file of a work dir that custom data has written last."""
    return Path(cfg.work_dir, "data/data.json")


def _check_outputs(cfg: "Config", data: "Options") -> None:
    """Raise an InputError if a run would replace a file that it reads.

    A run from the weights of an earlier one, in the same work dir, would save its
    checkpoints under the same names.
    """
    from convnext_dense.config.inputs import config_inputs
    from convnext_dense.utils import files
    from convnext_dense.utils.outputs import Output, check

    folder = Path(cfg.work_dir)
    files.check_folder(folder, "the work dir")
    written = []
    # A run that goes on keeps its splits, and reads its own checkpoint.
    if not (cfg.get("resume") and _splits_file(cfg).is_file()):
        written += [folder / "data" / name for name in DATA_FILES]
    if not cfg.get("resume"):
        written += [
            file for file in folder.glob("*.pth") if CHECKPOINTS.fullmatch(file.name)
        ]
    outputs = [Output("--work-dir:", file) for file in written]
    check(outputs, [*config_inputs(cfg), *data.inputs()], overwrite=True)
