"""Write a segmentor or a backbone to ONNX or torch.export:
tools/export.py CONFIG [CHECKPOINT] --out FILE.onnx|FILE.pt2."""

import argparse

from ..arguments import (
    add_options_argument,
    add_trust_argument,
    apply_trust,
    output_file,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="config file of either toolbox")
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="path, URL, timm://NAME or hf://OWNER/NAME; random weights if left out",
    )
    parser.add_argument(
        "--out",
        type=output_file,
        required=True,
        metavar="FILE",
        help="ends in .onnx or .pt2 (torch.export)",
    )
    parser.add_argument(
        "--backbone", action="store_true", help="only the backbone and its maps"
    )
    parser.add_argument(
        "--shape",
        nargs=2,
        type=int,
        default=(128, 160),
        metavar=("H", "W"),
        help="image size to trace it at; the file takes others too",
    )
    add_options_argument(parser)
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    apply_trust(args)

    from convnext_dense.config.options import load_config

    from .writing import export

    cfg = load_config(args.config, args.cfg_options)
    cfg.load_from = args.checkpoint
    export(cfg, args.out, args.backbone, tuple(args.shape))
