"""The properties of a GPU that the kernels depend on."""

import functools
import os
from typing import NamedTuple

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class Device(NamedTuple):
    """A GPU.

    Attributes:
        name: as PyTorch reports it.
        capability: its compute capability.
        multiprocessors: how many it has.
        shared: bytes of shared memory that a block may use.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared: int


# Programs are written for this GPU where there is none: an H100.
_MODEL = Device("none", (9, 0), 132, 227 * 1024)


@functools.cache
def device_of(index: int | None) -> Device:
    """The GPU with this index; an H100 for None, which stands for a CPU."""
    if index is None:
        return _MODEL
    properties = torch.cuda.get_device_properties(index)
    return Device(
        properties.name,
        (properties.major, properties.minor),
        properties.multi_processor_count,
        getattr(properties, "shared_memory_per_block_optin", 48 * 1024),
    )
