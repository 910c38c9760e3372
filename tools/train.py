"""Train a detector or a segmentor: tools/train.py CONFIG [options]."""

import argparse

from _command import add_common_arguments, apply_common_arguments, run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
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
    add_common_arguments(parser)
    args = parser.parse_args()
    apply_common_arguments(args)

    from convnext_dense import config, runtime  # after the arguments: seconds

    cfg = config.load_config(
        args.config, args.cfg_options, args.work_dir, args.launcher
    )
    if args.amp:
        config.use_amp(cfg)
    if args.auto_scale_lr:
        config.use_auto_scale_lr(cfg)
    if args.resume:
        config.use_resume(cfg, args.resume)
    runtime.run(cfg, "train")


if __name__ == "__main__":
    run(main)
