"""The learning rate of every layer: tools/show_layer_decay.py CONFIG [--plot FILE]."""

import argparse
from pathlib import Path

from .arguments import add_options_argument, output_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="config file of either toolbox")
    parser.add_argument(
        "--plot", type=output_file, metavar="FILE", help="draw the scale over depth"
    )
    add_options_argument(parser)


def main(args: argparse.Namespace) -> None:
    from convnext_dense.config.options import load_config
    from convnext_dense.engine.build import build_layer_decay
    from convnext_dense.optim import layer_decay_plot

    cfg = load_config(args.config, args.cfg_options)
    groups = build_layer_decay(cfg)  # the constructor prints the table
    if args.plot:
        layer_decay_plot.draw(groups, args.plot, Path(args.config).stem)
