"""Test a detector or a segmentor: tools/test.py CONFIG CHECKPOINT [options]."""

import argparse

from _command import add_common_arguments, apply_common_arguments, run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
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
    args = parser.parse_args()
    apply_common_arguments(args)

    from convnext_dense.config import options as config  # after the arguments: seconds
    from convnext_dense.engine import runner as runtime  # after the arguments: seconds

    cfg = config.load_config(
        args.config, args.cfg_options, args.work_dir, args.launcher
    )
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        config.use_show(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        config.use_tta(cfg)
    if args.out:
        config.use_out(cfg, args.out)
    runtime.run(cfg, "test")


if __name__ == "__main__":
    run(main)
