"""Test a detector or a segmentor on the test split of a config.

Prints the metrics, such as mAP or mIoU:
  convnext-dense test configs/det/cascade_mask_rcnn_convnext_t_coco.py CHECKPOINT
  convnext-dense test WORK_DIR
The work dir of a run stands for its config and its best or newest checkpoint.

Files that --out would replace need --overwrite: predictions may have taken hours. So do
pictures in the folder of --show-dir, unless it is in the work dir, where a test that is
repeated replaces its pictures. No flag lets an output replace an input.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..arguments import (
    CHECKPOINT,
    CONFIG_OR_RUN,
    add_common_arguments,
    add_everyday_arguments,
    add_overwrite_argument,
    add_tile_arguments,
    add_tracker_arguments,
    apply_common_arguments,
    everyday_flags,
    use_trackers,
)

if TYPE_CHECKING:  # imported when needed: it imports torch
    from mmengine.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of mmdet's and mmseg's test.py."""
    parser.add_argument("config", help=CONFIG_OR_RUN)
    parser.add_argument("checkpoint", nargs="?", help=CHECKPOINT)
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="save the predictions: into the .pkl file PATH (detection) or as label "
        "maps into the folder PATH (segmentation)",
    )
    parser.add_argument(
        "--show",
        action="store_true",
        help="show each image with its predictions in a window",
    )
    parser.add_argument(
        "--show-dir",
        metavar="DIR",
        help="write each image with its predictions into DIR",
    )
    parser.add_argument(
        "--wait-time",
        type=float,
        default=2,
        metavar="SECONDS",
        help="how long --show shows each image (2)",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: merge the predictions of several versions of "
        "each image, such as its mirror image",
    )
    add_tile_arguments(parser)
    add_overwrite_argument(parser)
    add_common_arguments(parser)
    add_tracker_arguments(parser)
    add_everyday_arguments(parser, training=False)


def main(args: argparse.Namespace) -> None:
    """Turn the flags into settings of the config, and test."""
    apply_common_arguments(args)

    from convnext_dense.config import cfg_options, options
    from convnext_dense.config.flags import use_flags
    from convnext_dense.config.trained import config_and_checkpoint
    from convnext_dense.engine.runner import run
    from convnext_dense.engine.tiling.grid import read_flags
    from convnext_dense.errors import InputError
    from convnext_dense.patches.chosen_device import chosen_device

    from .class_names import ClassNamesHook
    from .whole_files import WholeFilesHook

    tiling = read_flags(args.tile, args.overlap)
    if tiling and args.tta:
        raise InputError("--tile and --tta do not work together: give one of them")
    config, checkpoint = config_and_checkpoint(args.config, args.checkpoint)
    # A run that was copied or moved names its former work dir in its config.
    work_dir = args.work_dir or (args.config if config != args.config else None)
    cfg = options.load_config(config, args.cfg_options, work_dir, args.launcher)
    if checkpoint is None:
        raise InputError(
            f"name a checkpoint after {args.config}: a path, a work dir, a URL or "
            "hf://OWNER/NAME. A work dir alone stands for its config and checkpoint"
        )
    settings = cfg_options.parse(args.cfg_options or ())
    command_line = use_flags(cfg, everyday_flags(args), settings, ("test",))
    cfg.load_from = checkpoint
    _check_outputs(cfg, args.out, args.show_dir, args.overwrite)
    if args.show or args.show_dir:
        options.use_show(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        options.use_tta(cfg)
    if tiling:
        from convnext_dense.engine.tiling.model import use_tiles

        use_tiles(cfg, tiling)
    if args.out:
        options.use_out(cfg, args.out)
    # mmdet's hook writes into its test_out_dir.
    of_mmseg = args.show_dir if cfg.get("default_scope") == "mmseg" else None
    hooks = [WholeFilesHook(of_mmseg), ClassNamesHook()]
    hooks += use_trackers(args, cfg, "test")
    with chosen_device(args.device):
        run(cfg, "test", hooks=hooks, command_line=command_line)


def _check_outputs(
    cfg: "Config", out: str | None, show_dir: str | None, overwrite: bool
) -> None:
    """Raise an InputError if ``--out`` or ``--show-dir`` would replace files."""
    from convnext_dense.config.inputs import config_inputs
    from convnext_dense.utils import images
    from convnext_dense.utils.outputs import Folder, Output, check

    read = list(config_inputs(cfg, ("test",)))
    if out:
        label_maps = Folder(Path(out), (".png",))
        target = label_maps if cfg.get("default_scope") == "mmseg" else out
        check([Output("--out", target)], read, overwrite)
    if show_dir:
        pictures = Folder(Path(show_dir), images.SUFFIXES)
        work_dir = Path(cfg.work_dir).resolve()
        of_the_run = work_dir in Path(show_dir).resolve().parents
        check([Output("--show-dir", pictures)], read, overwrite or of_the_run)
