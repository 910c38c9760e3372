"""Print the learning rate scale of every layer of a config's model.

The config needs layer-wise or stage-wise learning rate decay:
  convnext-dense show-layer-decay configs/det/cascade_mask_rcnn_convnext_t_coco.py
"""

import argparse
from pathlib import Path

from .arguments import (
    CONFIG,
    add_options_argument,
    add_overwrite_argument,
    output_file,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config, ``--plot``, ``--overwrite`` and ``--cfg-options``."""
    parser.add_argument("config", help=CONFIG)
    parser.add_argument(
        "--plot",
        type=output_file,
        metavar="FILE",
        help="plot each layer's learning rate scale into FILE (.png, .svg, .pdf, ...)",
    )
    add_overwrite_argument(parser)
    add_options_argument(parser)


def main(args: argparse.Namespace) -> None:
    """Build the config's parameter groups, which prints their table; plot them."""
    from convnext_dense.config.inputs import config_inputs
    from convnext_dense.config.options import load_config
    from convnext_dense.engine.build import build_layer_decay
    from convnext_dense.optim import layer_decay_plot
    from convnext_dense.utils import outputs

    cfg = load_config(args.config, args.cfg_options)
    outputs.check(
        [outputs.Output("--plot", args.plot)], config_inputs(cfg), args.overwrite
    )
    groups = build_layer_decay(cfg)  # the constructor prints the table
    if args.plot:
        layer_decay_plot.draw(groups, args.plot, Path(args.config).stem)
