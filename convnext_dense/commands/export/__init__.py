"""Export a segmentor, a detector or a backbone to ONNX or torch.export.

The exported network takes images of any size from 64 x 64 pixels on:
  convnext-dense export CONFIG CHECKPOINT --out FILE.onnx
  convnext-dense export CONFIG CHECKPOINT --out FILE.pt2 --backbone
The work dir of a run stands for its config and its best or newest checkpoint.
"""

import argparse
from pathlib import Path

from ..arguments import (
    CONFIG_OR_RUN,
    add_options_argument,
    add_overwrite_argument,
    add_trust_argument,
    apply_trust,
    output_file,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the output file, what to export and the common flags."""
    parser.add_argument("config", help=CONFIG_OR_RUN)
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="checkpoint: a path, a URL, timm://NAME or hf://OWNER/NAME (default: "
        "random weights)",
    )
    parser.add_argument(
        "--out",
        type=output_file,
        required=True,
        metavar="FILE",
        help="file to write; it ends in .onnx (ONNX) or .pt2 (torch.export)",
    )
    parser.add_argument(
        "--backbone",
        action="store_true",
        help="export the backbone alone; it returns its feature maps",
    )
    parser.add_argument(
        "--shape",
        nargs=2,
        type=int,
        default=(128, 160),
        metavar=("H", "W"),
        help="height and width of the example image with which the network is "
        "traced; the exported network takes other sizes too (128 160)",
    )
    add_overwrite_argument(parser)
    add_options_argument(parser)
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    """Load the config and export its model."""
    apply_trust(args)

    from convnext_dense.config.inputs import config_inputs
    from convnext_dense.config.options import load_config
    from convnext_dense.config.trained import config_and_checkpoint
    from convnext_dense.utils import outputs

    from .writing import export, written

    config, checkpoint = config_and_checkpoint(args.config, args.checkpoint)
    cfg = load_config(config, args.cfg_options)
    cfg.load_from = checkpoint
    outputs.check(
        [outputs.Output("--out", file) for file in written(Path(args.out))],
        config_inputs(cfg, download=args.overwrite),
        args.overwrite,
    )
    export(cfg, args.out, args.backbone, tuple(args.shape))
