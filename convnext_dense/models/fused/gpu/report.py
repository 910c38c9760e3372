"""Describes the GPU path on a device, before it is used."""

from pathlib import Path
from typing import NamedTuple

import torch

from . import depthwise_cuda, disk_cache, ways
from .device import device_of
from .nvrtc import Unavailable

TYPES = torch.float32, torch.float16, torch.bfloat16
_CHANNELS = 96  # every architecture has multiples of 8
_WIDTH = 128  # of ConvNeXt's largest maps at 512 x 512


class Way(NamedTuple):
    """The way by which stages are computed in one number type.

    Attributes:
        way: one of ``ways.WAYS``.
        why: why no better way is possible; empty if it is the best.
        mendable: whether another installation would allow a better one.
    """

    way: str
    why: str = ""
    mendable: bool = False


class Kept(NamedTuple):
    """The CUDA kernels on disk.

    Attributes:
        folder: where they are; None if none can be written.
        kernels: how many there are.
    """

    folder: Path | None
    kernels: int


class KernelRatios(NamedTuple):
    """The times measured on a device with the installed versions.

    Attributes:
        stages: how many stages were timed; each size and type counts.
        plain: for how many of them plain PyTorch is faster.
        ratios: the smallest and the largest ratio of the kernels' time to that of plain
            PyTorch.
    """

    stages: int
    plain: int
    ratios: tuple[float, float]


def ways_on(device: int) -> dict[torch.dtype, Way]:
    """The best way that a device supports, for each type of the products.

    When the kernels are first used they are still checked and timed against plain
    PyTorch.

    Raises:
        InputError: the environment forces a way that does not exist.
    """
    forced = ways.forced()
    return {work: _way(work, device, forced) for work in TYPES}


def kept() -> Kept:
    """The CUDA kernels on disk."""
    folder = disk_cache.folder()
    return Kept(folder, len(list(folder.glob("*.cubin"))) if folder else 0)


def times(device: int) -> KernelRatios | None:
    """The times measured on a device, or None."""
    measured = [t for t in ways._remembered(device).values() if t]
    if not measured:
        return None
    ratios = [kernels / plain for kernels, plain in measured]
    plain = sum(ratio > 1 for ratio in ratios)
    return KernelRatios(len(ratios), plain, (min(ratios), max(ratios)))


def _way(work: torch.dtype, device: int, forced: str | None) -> Way:
    """The best way for one type."""
    if forced == ways.PLAIN:
        return Way(ways.PLAIN, f"{ways.VARIABLE}={forced} is set")
    possible, why = ways.possible(_CHANNELS, work, device)
    if forced:
        why = why or f"{ways.VARIABLE}={forced} is set"
        possible = [way for way in possible if way == forced]
    mendable = False
    if ways.TENSOR_CORES in possible:
        try:
            _compile(work, device)
        except Unavailable as error:
            possible.remove(ways.TENSOR_CORES)
            why, mendable = str(error), True
    return Way(possible[0] if possible else ways.PLAIN, why, mendable)


def _compile(work: torch.dtype, device: int) -> None:
    """Compile a kernel that training needs, in under a second, or read it from disk."""
    architecture = depthwise_cuda.architecture(device_of(device).capability)
    depthwise_cuda.weight_gradient(_WIDTH, work, architecture)
