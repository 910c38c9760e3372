"""Train a detector or a segmentor: tools/train.py CONFIG [options].

Train on your own data with --data DIR, or --train-json and --train-images, or
--train-images and --train-labels: classes, heads and schedule are set to fit it.
"""

import argparse
from functools import partial

from .arguments import (
    add_common_arguments,
    add_data_arguments,
    apply_common_arguments,
    data_options,
    positive,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="config file of either toolbox")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate with the batch size",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CKPT",
        help="go on from a checkpoint; without one, from the newest of the work dir",
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="do not train: run a batch again that was not finite, "
        "WORK_DIR/not_finite/iter_N.pth",
    )
    add_common_arguments(parser)
    add_data_arguments(parser).add_argument(
        "--epochs", type=positive, metavar="N", help="sized from the data if not given"
    )


def main(args: argparse.Namespace) -> None:
    apply_common_arguments(args)

    from convnext_dense.config import options
    from convnext_dense.datasets.custom.prepare import prepare
    from convnext_dense.engine import runner
    from convnext_dense.errors import InputError

    cfg = options.load_config(
        args.config, args.cfg_options, args.work_dir, args.launcher
    )
    if args.amp:
        options.use_amp(cfg)
    if args.auto_scale_lr:
        options.use_auto_scale_lr(cfg)
    if args.replay:
        runner.replay(cfg, args.replay)
        return
    if args.resume:
        options.use_resume(cfg, args.resume)
    data = data_options(args)
    if args.epochs and not data:
        raise InputError(
            "--epochs is for your own data (--data, --train-json, --train-labels); a "
            "config's own: --cfg-options train_cfg.max_epochs=N or .max_iters=N"
        )
    runner.run(cfg, "train", partial(prepare, cfg, data, args.epochs) if data else None)
