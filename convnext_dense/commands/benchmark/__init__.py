"""Compare the time and memory of this package's ConvNeXt with other libraries'.

Without CONFIG, inference and training steps of the backbones alone:
  convnext-dense benchmark --arch tiny --size 512 --batch 8

With CONFIG, whole training steps of its model, with this package's backbone and with
timm's, and the backbone's share of the step:
  convnext-dense benchmark CONFIG [CONFIG ...] --size 800x1216

All rows of a table are measured alternately, so that a slow moment of the machine
affects all of them. Ratios are to the fastest of the other libraries, in whichever way
it was run; below 1, this package is better.
"""

import argparse
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_dense.models.archs import ARCHS

from ..arguments import CONFIG, add_overwrite_argument, output_file, positive

if TYPE_CHECKING:  # imported when needed: it imports torch
    from .rows import Row

    # Pairs of a heading and a function that measures the rows below it.
    Groups = Iterator[tuple[str, Callable[[], list[Row]]]]

# The profiler that counts bytes on a CPU logs at length that there is no GPU.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

MODES, DTYPES = ("inference", "training"), ("fp32", "bf16")
EXECUTIONS = "eager", "compiled", "reduce-overhead"
LAYOUTS = "nchw", "channels_last"
PEERS = "timm", "torchvision", "transformers", "mmpretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to measure, in which settings, and where to write the figures."""
    add = parser.add_argument
    add("configs", nargs="*", metavar="CONFIG", help=CONFIG)
    add(
        "--arch",
        default="tiny",
        help=f"architecture of the backbones: {', '.join(ARCHS)} (tiny)",
    )
    add("--v2", action="store_true", help="measure ConvNeXt V2, which has GRN")
    add(
        "--drop-path-rate",
        type=float,
        default=0.0,
        metavar="RATE",
        help="drop path rate of the backbones in training (0)",
    )
    add(
        "--size",
        nargs="+",
        type=image_size,
        default=[(512, 512)],
        help="one or several image sizes in pixels: 512 is 512 x 512, 800x1216 is "
        "height x width (512)",
    )
    add(
        "--batch",
        type=positive,
        metavar="N",
        help="number of images in a step (1; with CONFIG 2)",
    )
    add(
        "--device",
        choices=["cpu", "cuda"],
        help="device to measure on (default: cuda if there is a GPU, else cpu)",
    )
    add(
        "--mode",
        nargs="+",
        choices=MODES,
        default=MODES,
        help="steps to measure, without CONFIG (both)",
    )
    add(
        "--dtype",
        nargs="+",
        choices=DTYPES,
        default=DTYPES,
        help="number types to measure; bf16 runs under autocast (both)",
    )
    add(
        "--execution",
        nargs="+",
        choices=EXECUTIONS,
        default=["eager"],
        help="how to run the backbones (eager); each choice is a row. compiled is "
        "torch.compile, reduce-overhead is torch.compile(mode='reduce-overhead'), "
        "which needs a GPU. With CONFIG everything runs eagerly",
    )
    add(
        "--peers-execution",
        nargs="+",
        choices=EXECUTIONS,
        help="how to run the other libraries' backbones (default: as --execution). "
        "To compare this package's eager backbone with the others at their best: "
        "--peers-execution eager compiled reduce-overhead",
    )
    add(
        "--graphs",
        action="store_true",
        help="also measure this package's ConvNeXt(cuda_graphs=True); needs a GPU",
    )
    add(
        "--layout",
        nargs="+",
        choices=LAYOUTS,
        default=LAYOUTS,
        help="memory formats to try; a row shows the fastest. Give one to save "
        "compile time (both)",
    )
    add(
        "--seconds",
        type=float,
        default=60,
        help="time to spend on each table (60); at least three rounds are measured",
    )
    add(
        "--peers",
        nargs="+",
        choices=PEERS,
        help="libraries to compare with (default: all that are installed)",
    )
    add(
        "--cfg-options",
        nargs="+",
        metavar="KEY=VALUE",
        help="override settings of each CONFIG",
    )
    add(
        "--host",
        action="store_true",
        help="measure only the host's (CPU's) time in a training step of --arch, "
        "without launching kernels; needs no GPU",
    )
    add(
        "--json",
        type=output_file,
        metavar="FILE",
        help="write all figures to a JSON file",
    )
    add(
        "--plot",
        type=output_file,
        metavar="FILE",
        help="draw the figures into FILE (.png, .svg, .pdf, ...)",
    )
    add_overwrite_argument(parser)


def image_size(text: str) -> tuple[int, int]:
    """Argument type: a number of pixels for a square, or HEIGHTxWIDTH."""
    try:
        height, width = map(positive, text.split("x") if "x" in text else [text] * 2)
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"{text} is not a size: give a number of pixels, or HEIGHTxWIDTH"
        ) from None
    return height, width


def main(args: argparse.Namespace) -> None:
    """Measure the host's time alone, or compare with other libraries."""
    from convnext_dense.config.inputs import config_inputs
    from convnext_dense.config.options import load_config
    from convnext_dense.utils import outputs

    outputs.check(
        [outputs.Output("--json", args.json), outputs.Output("--plot", args.plot)],
        [file for c in args.configs for file in config_inputs(load_config(c))],
        args.overwrite,
    )
    if args.host:
        _measure_host(args)
    else:
        _compare(args)


def _measure_host(args: argparse.Namespace) -> None:
    """``--host``: print the host's time for each stage."""
    from . import host, machine

    print(machine.describe("cpu"), end="\n\n", flush=True)
    rows = host.measure(args.arch, args.v2, args.drop_path_rate)
    print(*host.lines(rows), sep="\n")
    if args.json:
        _write(args.json, host.to_json(rows))


def _write(file: str, text: str) -> None:
    """Write a JSON file, completely or not at all."""
    from convnext_dense.utils import files

    with files.whole(file) as partial:
        partial.write_text(text)


def _compare(args: argparse.Namespace) -> None:
    """Print a table for each setting."""
    from . import machine, plot, table

    args.device = machine.choose_device(args.device)
    args.batch = args.batch or (2 if args.configs else 1)
    args.peers_execution = args.peers_execution or args.execution
    if args.device == "cpu":
        _refuse_gpu_options(args)
    title = machine.describe(args.device)
    print(title, end="\n\n")
    groups: list[tuple[str, list[Row]]] = []
    for heading, measure in (_models if args.configs else _backbones)(args):
        print(heading, flush=True)  # first: measuring takes minutes
        rows = measure()
        print(table.to_text(rows), end="\n\n", flush=True)
        groups.append((heading, rows))
        # After each table, so that an interrupted benchmark has written the others.
        if args.json:
            _write(args.json, table.to_json(title, groups))
        if args.plot:
            plot.draw(groups, args.plot, title)


def _refuse_gpu_options(args: argparse.Namespace) -> None:
    """Raise an InputError for flags that need a GPU."""
    from convnext_dense.errors import InputError

    if args.graphs:
        raise InputError("--graphs needs a GPU: it measures CUDA graphs")
    for option in ("execution", "peers_execution"):
        if "reduce-overhead" in getattr(args, option):
            flag = option.replace("_", "-")
            raise InputError(
                f"--{flag} reduce-overhead needs a GPU: it uses CUDA graphs"
            )


def _backbones(args: argparse.Namespace) -> "Groups":
    """The backbones alone, in each setting."""
    from . import backbones, steps

    # Inference first: training leaves free blocks in the allocator, which a process
    # that only predicts does not have.
    settings = [
        backbones.Setting(args.batch, size, mode, dtype)
        for mode, dtype, size in itertools.product(args.mode, args.dtype, args.size)
    ]
    executions = [*args.execution, *([steps.GRAPHS] if args.graphs else [])]
    candidates = backbones.Candidates(
        args.peers, executions, args.peers_execution, args.layout
    )
    return backbones.compare(
        *(args.arch, settings, candidates),
        *(args.device, args.seconds, args.v2, args.drop_path_rate),
    )


def _models(args: argparse.Namespace) -> "Groups":
    """The whole models of the configs, in each setting."""
    from convnext_dense.config.options import load_config

    from . import models

    for config, dtype, size in itertools.product(args.configs, args.dtype, args.size):
        cfg = load_config(config, args.cfg_options)
        common = args.batch, args.device, dtype, args.seconds, args.graphs
        height, width = size
        heading = f"{Path(config).stem}, {args.batch} x {height} x {width}, {dtype}"
        yield heading, functools.partial(models.compare, cfg, size, *common)
