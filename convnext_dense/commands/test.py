"""Test a detector or a segmentor: tools/test.py CONFIG CHECKPOINT [options]."""

import argparse

from .arguments import add_common_arguments, apply_common_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="config file of either toolbox")
    parser.add_argument("checkpoint", help="path, URL or hf://OWNER/NAME")
    parser.add_argument(
        "--out", help="keep the predictions: a .pkl file (mmdet), a folder (mmseg)"
    )
    parser.add_argument("--show", action="store_true", help="show the predictions")
    parser.add_argument("--show-dir", help="draw the predictions into this folder")
    parser.add_argument("--wait-time", type=float, default=2, help="of --show, seconds")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    add_common_arguments(parser)


def main(args: argparse.Namespace) -> None:
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
