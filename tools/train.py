"""Train a detector or a segmentor: tools/train.py CONFIG [options].

On data of one's own with --data DIR, or --train-json and --train-images, or
--train-images and --train-labels: classes, heads and schedule follow it.
"""

import argparse
from functools import partial

from _command import (
    add_common_arguments,
    add_data_arguments,
    apply_common_arguments,
    data_options,
    positive,
    run,
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    args = parser.parse_args()
    apply_common_arguments(args)

    # After the arguments: it takes seconds.
    from convnext_dense.config import options as config
    from convnext_dense.datasets.custom import prepare as own_data
    from convnext_dense.engine import runner as runtime
    from convnext_dense.errors import InputError

    cfg = config.load_config(
        args.config, args.cfg_options, args.work_dir, args.launcher
    )
    if args.amp:
        config.use_amp(cfg)
    if args.auto_scale_lr:
        config.use_auto_scale_lr(cfg)
    if args.replay:
        runtime.replay(cfg, args.replay)
        return
    if args.resume:
        config.use_resume(cfg, args.resume)
    options = data_options(args)
    if args.epochs and not options:
        raise InputError(
            "--epochs is for your own data (--data, --train-json, --train-labels); a "
            "config's own: --cfg-options train_cfg.max_epochs=N or .max_iters=N"
        )
    prepare = partial(own_data.prepare, cfg, options, args.epochs) if options else None
    runtime.run(cfg, "train", prepare)


if __name__ == "__main__":
    run(main)
