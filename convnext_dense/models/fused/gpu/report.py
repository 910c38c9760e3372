"""A GPU before it is used: which way it has, kernels kept on disk, times measured."""

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
    """The way that stages take in a type.

    Attributes:
        way: of ``ways.WAYS``.
        why: no better way is possible; empty if it is the best.
        mendable: another installation would have a better one.
    """

    way: str
    why: str = ""
    mendable: bool = False


class Kept(NamedTuple):
    """CUDA kernels on disk; ``folder`` is None where none can be kept."""

    folder: Path | None
    kernels: int


class Times(NamedTuple):
    """What was measured on a device with these versions.

    Attributes:
        stages: how many, each size and type for itself.
        plain: for how many plain PyTorch is taken, as it is quicker.
        ratios: the least and the largest time of kernels to that of plain PyTorch.
    """

    stages: int
    plain: int
    ratios: tuple[float, float]


def ways_on(device: int) -> dict[torch.dtype, Way]:
    """The best way that a device can have, for each type of work.

    Kernels have yet to prove themselves when they are first used, and to be as quick
    as plain PyTorch.

    Raises:
        InputError: the environment asks for a way that does not exist.
    """
    forced = ways.forced()
    return {work: _way(work, device, forced) for work in TYPES}


def kept() -> Kept:
    """How many CUDA kernels are kept on disk, and where."""
    folder = disk_cache.folder()
    return Kept(folder, len(list(folder.glob("*.cubin"))) if folder else 0)


def times(device: int) -> Times | None:
    """The times measured on a device; None if there are none."""
    measured = [t for t in ways._remembered(device).values() if t]
    if not measured:
        return None
    ratios = [kernels / plain for kernels, plain in measured]
    plain = sum(ratio > 1 for ratio in ratios)
    return Times(len(ratios), plain, (min(ratios), max(ratios)))


def _way(work: torch.dtype, device: int, forced: str | None) -> Way:
    if forced == ways.PLAIN:
        return Way(ways.PLAIN, "it is asked for")
    possible, why = ways.possible(_CHANNELS, work, device)
    if forced:
        why = why or f"{forced} is asked for"
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
    """A kernel that training needs: from disk, or by NVRTC in under a second."""
    architecture = depthwise_cuda.architecture(device_of(device).capability)
    depthwise_cuda.weight_gradient(_WIDTH, work, architecture)
