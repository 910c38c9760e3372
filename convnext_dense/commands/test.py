"""Test a detector or a segmentor on the test split of a config.

Prints the metrics, such as mAP or mIoU:
  tools/test.py configs/det/cascade_mask_rcnn_convnext_t_coco.py CHECKPOINT
"""

import argparse

from .arguments import (
    CHECKPOINT,
    CONFIG,
    add_common_arguments,
    apply_common_arguments,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of mmdet's and mmseg's test.py."""
    parser.add_argument("config", help=CONFIG)
    parser.add_argument("checkpoint", help=CHECKPOINT)
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
    add_common_arguments(parser)


def main(args: argparse.Namespace) -> None:
    """Turn the flags into settings of the config, and test."""
    apply_common_arguments(args)

    from convnext_dense.config import options
    from convnext_dense.engine.runner import run

    cfg = options.load_config(
        args.config, args.cfg_options, args.work_dir, args.launcher
    )
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        options.use_show(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        options.use_tta(cfg)
    if args.out:
        options.use_out(cfg, args.out)
    run(cfg, "test")
