"""Time and memory beside other libraries' ConvNeXts: tools/benchmark.py [CONFIG ...].

Without a config: inference and training steps of the backbones alone. With configs:
whole training steps of their models, with this backbone and with timm's, and the
backbone's share of them. All rows of a table are measured in turn; a ratio is to the
best of the other libraries, however it is run.
"""

import argparse
import functools
import itertools
import os
from pathlib import Path

from ..arguments import output_file, positive

# The profiler that counts a CPU's bytes has much to say about there being no GPU.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

MODES, DTYPES = ("inference", "training"), ("fp32", "bf16")
EXECUTIONS = "eager", "compiled", "reduce-overhead"
LAYOUTS = "nchw", "channels_last"
PEERS = "timm", "torchvision", "transformers", "mmpretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("configs", nargs="*", metavar="CONFIG", help="config file of either toolbox")
    add("--arch", default="tiny", help="of the backbones (tiny)")
    add("--v2", action="store_true", help="ConvNeXt V2: with GRN")
    add("--drop-path-rate", type=float, default=0.0, help="in training (0)")
    add(
        "--size",
        nargs="+",
        type=image_size,
        default=[(512, 512)],
        help="of the images in pixels, one or several: 512 for squares, 800x1216 for "
        "height x width (512)",
    )
    add("--batch", type=positive, help="images in a step (1; with a CONFIG 2)")
    add("--device", choices=["cpu", "cuda"], help="cuda where it is")
    add("--mode", nargs="+", choices=MODES, default=MODES)
    add("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    add(
        "--execution",
        nargs="+",
        choices=EXECUTIONS,
        default=["eager"],
        help="how to run the backbones: as they are, under torch.compile, under "
        "torch.compile(mode='reduce-overhead'), which needs a GPU; a row for each "
        "(eager). With a CONFIG all run as they are",
    )
    add(
        "--peers-execution",
        nargs="+",
        choices=EXECUTIONS,
        help="how to run the other libraries' (as --execution). Ours as it is beside "
        "the others at their best: --peers-execution eager compiled reduce-overhead",
    )
    add(
        "--graphs",
        action="store_true",
        help="measure ConvNeXt(cuda_graphs=True) too; needs a GPU",
    )
    add(
        "--layout",
        nargs="+",
        choices=LAYOUTS,
        default=LAYOUTS,
        help="memory formats to try; the fastest is shown. Fewer save compiling (both)",
    )
    add(
        "--seconds",
        type=float,
        default=60,
        help="how long to time each setting (60); three rounds at least",
    )
    add(
        "--peers",
        nargs="+",
        choices=PEERS,
        help="the libraries to compare with; all that are installed if left out",
    )
    add("--cfg-options", nargs="+", metavar="KEY=VALUE", help="override a CONFIG")
    add(
        "--host",
        action="store_true",
        help="measure only what the host does in a training step of --arch, with the "
        "GPU's launches left out; needs no GPU",
    )
    add("--json", type=output_file, metavar="FILE", help="write all figures")
    add("--plot", type=output_file, metavar="FILE", help="draw a picture")


def image_size(text: str) -> tuple[int, int]:
    """An argument's type: one number for a square, or HEIGHTxWIDTH."""
    try:
        height, width = map(positive, text.split("x") if "x" in text else [text] * 2)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is no size: give a number of pixels, or HEIGHTxWIDTH"
        ) from None
    return height, width


def main(args: argparse.Namespace) -> None:
    if args.host:
        _host(args)
    else:
        _beside_peers(args)


def _host(args):
    from . import host, machine

    print(machine.about("cpu"), end="\n\n", flush=True)
    rows = host.measure(args.arch, args.v2, args.drop_path_rate)
    print(*host.lines(rows), sep="\n")
    if args.json:
        Path(args.json).write_text(host.to_json(rows))


def _beside_peers(args):
    from . import machine, picture, report

    args.device = machine.device(args.device)
    args.batch = args.batch or (2 if args.configs else 1)
    args.peers_execution = args.peers_execution or args.execution
    if args.device == "cpu":
        _refuse_gpu_options(args)
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
            picture.draw(groups, args.plot, about)


def _refuse_gpu_options(args):
    from convnext_dense.errors import InputError

    if args.graphs:
        raise InputError("--graphs needs a GPU: it measures CUDA graphs")
    for option in ("execution", "peers_execution"):
        if "reduce-overhead" in getattr(args, option):
            name = option.replace("_", "-")
            raise InputError(f"--{name} reduce-overhead needs a GPU: it is CUDA graphs")


def _backbones(args):
    from . import backbones, steps

    # Inference first: training leaves the allocator with room that a process which
    # only predicts does not have.
    settings = [
        backbones.Setting(args.batch, size, mode, dtype)
        for mode, dtype, size in itertools.product(args.mode, args.dtype, args.size)
    ]
    executions = [*args.execution, *([steps.GRAPHS] if args.graphs else [])]
    candidates = backbones.Candidates(
        args.peers, executions, args.peers_execution, args.layout
    )
    common = args.device, args.seconds, args.v2, args.drop_path_rate
    return backbones.compare(args.arch, settings, candidates, *common)


def _models(args):
    from convnext_dense.config.options import load_config

    from . import models

    for config, dtype, size in itertools.product(args.configs, args.dtype, args.size):
        cfg = load_config(config, args.cfg_options)
        common = args.batch, args.device, dtype, args.seconds, args.graphs
        height, width = size
        heading = f"{Path(config).stem}, {args.batch} x {height} x {width}, {dtype}"
        yield heading, functools.partial(models.compare, cfg, size, *common)
