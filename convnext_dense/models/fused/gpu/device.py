"""What the kernels need to know of a GPU."""

import functools
import os
from typing import NamedTuple

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class Device(NamedTuple):
    """``shared``: bytes of shared memory that one kernel may have."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared: int


# The GPU that kernels are written for where there is none: an H100.
_MODEL = Device("none", (9, 0), 132, 227 * 1024)


@functools.cache
def device_of(index: int | None) -> Device:
    """The GPU of this number; None, for a CPU, gives the model."""
    if index is None:
        return _MODEL
    properties = torch.cuda.get_device_properties(index)
    return Device(
        properties.name,
        (properties.major, properties.minor),
        properties.multi_processor_count,
        getattr(properties, "shared_memory_per_block_optin", 48 * 1024),
    )
