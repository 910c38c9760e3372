"""Prints a Markdown table of GPU figures and the ratios aimed at: ``make test-gpu``.

Each line is the ratio of our figure to timm's, in bf16, from the same run; below 1 is
better. If a comparison fails, its lines say so and the others are still measured.
"""

import argparse
import gc
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# Without a GPU the profiler would log many warnings.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch

from convnext_dense.commands.benchmark import backbones, machine, models
from convnext_dense.commands.benchmark.peers import OURS
from convnext_dense.commands.benchmark.rows import Row, ratio
from convnext_dense.commands.benchmark.steps import EAGER, GRAPHS, REDUCE_OVERHEAD
from convnext_dense.config.options import load_config
from convnext_dense.errors import InputError

from ..helpers.paths import ROOT

CONFIGS = ROOT / "configs"
NAMES = {
    "ms": "time",
    "host_ms": "host time",
    "kept": "kept for backward",
    "peak": "peak",
}
SQUARE, WIDE = (512, 512), (800, 1216)


class Backbones(NamedTuple):
    """A comparison of our backbone's steps with timm's.

    Attributes:
        setting: batch, size and mode.
        aims: maps each figure to the ratio aimed at.
        arch, use_grn, drop_path_rate: of both backbones.
        execution: how ours runs, of ``benchmark.steps``.
        peers_execution: how timm's runs.
    """

    setting: tuple[int, tuple[int, int], str]
    aims: dict[str, float]
    arch: str | dict = "tiny"
    use_grn: bool = False
    drop_path_rate: float = 0.0
    execution: str = EAGER
    peers_execution: str = EAGER

    def __str__(self) -> str:
        batch, (height, width), mode = self.setting
        version = "V2 " if self.use_grn else ""
        text = f"{version}{self.arch}, {mode}, {batch} x {height} x {width}"
        if self.drop_path_rate:
            text += f", drop path {self.drop_path_rate}"
        if self.execution != EAGER:
            text += f", {self.execution}"
        if self.peers_execution != EAGER:
            text += f", timm {self.peers_execution}"
        return text

    def measure(self, device: str, seconds: float) -> list[Row]:
        """The rows of both backbones, timed for ``seconds``."""
        candidates = backbones.Candidates(
            *(["timm"], [self.execution], [self.peers_execution], ["channels_last"])
        )
        common = candidates, device, seconds, self.use_grn, self.drop_path_rate
        setting = backbones.Setting(*self.setting, "bf16")
        ((_, measure),) = backbones.compare(self.arch, [setting], *common)
        return measure()


class Model(NamedTuple):
    """A comparison of whole training steps.

    Attributes:
        config: its path below ``configs``.
        batch, side: the batch size, and the side of the square images in pixels.
        aims: maps each figure to the ratio aimed at.
    """

    config: str
    batch: int
    side: int
    aims: dict[str, float]

    def __str__(self) -> str:
        return f"{Path(self.config).stem}, {self.batch} x {self.side} x {self.side}"

    def measure(self, device: str, seconds: float) -> list[Row]:
        """The rows of both models, timed for ``seconds``."""
        cfg = load_config(str(CONFIGS / self.config))
        size = self.side, self.side
        return models.compare(cfg, size, self.batch, device, "bf16", seconds)


def training(batch: int, size: tuple[int, int], ms: float, **others) -> Backbones:
    """Training steps whose time is compared; ``ms`` is the ratio aimed at."""
    return Backbones((batch, size, "training"), {"ms": ms}, **others)


def inference(batch: int, size: tuple[int, int], ms: float, **others) -> Backbones:
    """Inference steps whose time is compared; ``ms`` is the ratio aimed at."""
    return Backbones((batch, size, "inference"), {"ms": ms}, **others)


REDUCED = dict(peers_execution=REDUCE_OVERHEAD)
STEP = {"ms": 0.40, "kept": 0.12, "peak": 0.20, "host_ms": 0.40}
# Inference comes first, since training leaves memory in the allocator. Comparisons with
# torch.compile come last, since each compiles for half a minute.
COMPARISONS = (
    inference(16, SQUARE, 0.30),
    inference(2, SQUARE, 0.20),
    inference(2, WIDE, 0.30),
    Backbones((16, SQUARE, "training"), STEP),
    training(16, SQUARE, 0.40, drop_path_rate=0.4),
    training(2, SQUARE, 0.35),
    training(2, SQUARE, 0.15, execution=GRAPHS),
    training(2, WIDE, 0.40),
    training(16, SQUARE, 0.45, use_grn=True),
    training(8, SQUARE, 0.50, arch="base"),
    training(4, SQUARE, 0.50, arch="large"),
    Model("det/cascade_mask_rcnn_convnext_t_coco.py", 2, 1024, dict(ms=0.9, peak=0.5)),
    Backbones((16, SQUARE, "training"), dict(ms=0.65, peak=0.20), **REDUCED),
    inference(16, SQUARE, 0.60, **REDUCED),
    inference(2, SQUARE, 0.60, **REDUCED),
    inference(2, WIDE, 0.60, **REDUCED),
)


def lines(
    comparisons: Sequence[Backbones | Model], device: str, seconds: float
) -> Iterator[str]:
    """Measure the comparisons; yield each line of the table as soon as it is known."""
    yield "| | figure | aim | ratio | ours | timm |"
    yield "|---|---|---|---|---|---|"
    for comparison in comparisons:
        try:
            rows = comparison.measure(device, seconds)
            cells = [_cells(rows, figure) for figure in comparison.aims]
        except Exception as error:
            traceback.print_exc()
            words = " ".join(f"FAILED: {type(error).__name__}: {error}".split())
            words = words[:200].replace("|", "/")  # one cell; the traceback is printed
            cells = [(words, "", "")] * len(comparison.aims)
        for (figure, aim), measured in zip(comparison.aims.items(), cells, strict=True):
            texts = str(comparison), NAMES[figure], f"{aim:.2f}", *measured
            yield f"| {' | '.join(texts)} |"
        _free(device)


def _cells(rows: Sequence[Row], figure: str) -> tuple[str, str, str]:
    """The ratio, our figure and timm's, as texts."""
    ours = next(row for row in rows if row.library == OURS)
    theirs = next(row for row in rows if row.library != OURS)
    value = ratio(rows, ours, figure)
    sides = (_amount(row.figures, figure) for row in (ours, theirs))
    return "not measured" if value is None else f"{value:.2f}", *sides


def _amount(figures, figure: str) -> str:
    value = getattr(figures, figure)
    if value is None:
        return ""
    return f"{value:.2f} ms" if figure in ("ms", "host_ms") else f"{value / 1e6:.0f} MB"


def _free(device: str) -> None:
    """Free the memory that a failed comparison may have left allocated."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 1 if a line failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=2, help="how long to time each line (2)"
    )
    args = parser.parse_args(arguments)
    try:
        device = machine.choose_device("cuda")
    except InputError:
        parser.exit(2, "torch finds no GPU, so there is nothing to measure\n")
    print(machine.describe(device), end="\n\n", flush=True)
    failed = False
    for line in lines(COMPARISONS, device, args.seconds):
        print(line, flush=True)
        failed |= "FAILED" in line
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
