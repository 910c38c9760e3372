"""The learning rate of every layer: tools/show_layer_decay.py CONFIG [--plot FILE]."""

import argparse
from pathlib import Path

from _command import add_options_argument, output_file, run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file of either toolbox")
    parser.add_argument(
        "--plot", type=output_file, metavar="FILE", help="draw the scale over depth"
    )
    add_options_argument(parser)
    args = parser.parse_args()

    from convnext_dense.config import options as config  # it takes seconds
    from convnext_dense.engine import runner as runtime  # it takes seconds
    from convnext_dense.optim import layer_decay_plot  # it takes seconds

    cfg = config.load_config(args.config, args.cfg_options)
    groups = runtime.build_layer_decay(cfg)  # their constructor prints the table
    if args.plot:
        layer_decay_plot.draw(groups, args.plot, Path(args.config).stem)


if __name__ == "__main__":
    run(main)
