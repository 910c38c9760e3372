"""Time and memory beside other libraries' ConvNeXts: tools/benchmark.py [CONFIG ...].

Without a config: inference and training steps of the backbones alone. With configs:
whole training steps of their models, with this backbone and with timm's.
"""

import argparse
import functools
import itertools
import os
from pathlib import Path

from _command import output_file, positive, run

# The profiler that counts a CPU's bytes has much to say about there being no GPU.
os.environ.setdefault("KINETO_LOG_LEVEL", "5")

MODES, DTYPES, EXECUTIONS = (
    ("inference", "training"),
    ("fp32", "bf16"),
    ("eager", "compiled"),
)
PEERS = "timm", "torchvision", "transformers", "mmpretrain"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "configs", nargs="*", metavar="CONFIG", help="config file of either toolbox"
    )
    parser.add_argument("--arch", default="tiny", help="of the backbones (tiny)")
    parser.add_argument("--v2", action="store_true", help="ConvNeXt V2: with GRN")
    parser.add_argument(
        "--drop-path-rate", type=float, default=0.0, help="in training (0)"
    )
    parser.add_argument(
        "--size",
        nargs="+",
        type=positive,
        default=[512],
        help="side of the square images in pixels, one or several (512)",
    )
    parser.add_argument(
        "--batch", type=positive, help="images in a step (1; with a CONFIG 2)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="cuda where it is")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument(
        "--execution", nargs="+", choices=EXECUTIONS, default=EXECUTIONS
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60,
        help="how long to time each setting (60); three rounds at least",
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=PEERS,
        help="the libraries to compare with; all that are installed if left out",
    )
    parser.add_argument(
        "--cfg-options", nargs="+", metavar="KEY=VALUE", help="override a CONFIG"
    )
    parser.add_argument("--json", type=output_file, metavar="FILE")
    parser.add_argument(
        "--plot", type=output_file, metavar="FILE", help="draw a picture"
    )
    args = parser.parse_args()

    # After the arguments: seconds.
    from convnext_dense.benchmark import machine, report

    args.device = machine.device(args.device)
    args.batch = args.batch or (2 if args.configs else 1)
    about = machine.about(args.device)
    print(about, end="\n\n")
    groups = []
    for heading, measure in (_models if args.configs else _backbones)(args):
        print(heading, flush=True)  # before it is measured: that takes its time
        rows = measure()
        print(report.table(rows), end="\n\n", flush=True)
        groups.append((heading, rows))
        if args.json:  # after each: these take their time
            Path(args.json).write_text(report.to_json(about, groups))
        if args.plot:
            report.draw(groups, args.plot, about)


def _backbones(args):
    from convnext_dense.benchmark import backbones

    # Inference first: training leaves the allocator with room that a process which
    # only predicts does not have.
    settings = [
        backbones.Setting(size, mode, dtype, execution)
        for mode, execution, dtype, size in itertools.product(
            args.mode, args.execution, args.dtype, args.size
        )
    ]
    common = args.batch, args.device, args.seconds, args.v2, args.drop_path_rate
    return backbones.compare(args.arch, settings, args.peers, *common)


def _models(args):
    from convnext_dense.benchmark import models
    from convnext_dense.config import load_config

    for config, dtype, size in itertools.product(args.configs, args.dtype, args.size):
        cfg = load_config(config, args.cfg_options)
        common = args.batch, args.device, dtype, args.seconds
        heading = f"{Path(config).stem}, {args.batch} x {size} x {size}, {dtype}"
        yield heading, functools.partial(models.compare, cfg, size, *common)


if __name__ == "__main__":
    run(main)
