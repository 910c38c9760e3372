"""Reads safetensors files, after a look at their headers.

safetensors itself checks that the tensors fit the file. Its header may be 100 MB of
JSON, for which a file with nothing else keeps it busy for minutes.
"""

from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from .unpickling import TooMuch

# 40,000 entries. The largest models have some thousand tensors.
MOST_HEADER = 4 * 2**20  # bytes


def is_safetensors(start: bytes) -> bool:
    """Whether a file with these first 9 bytes is one: a length, then JSON."""
    return start[8:9] == b"{"


def read(file: BinaryIO, map_location: Any) -> dict[str, Tensor]:
    """The tensors of a file.

    Args:
        file: at its start.
        map_location: as in ``torch.load``; the format does not note a device, so that
            only a device itself has an effect.

    Raises:
        TooMuch: its header is longer than that of any model.
        Exception: it is damaged.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise TooMuch(f"its header has {length:,} bytes, more than any model's")
    file.seek(0)
    name = getattr(file, "name", None)
    weights = (
        safetensors.torch.load_file(name)
        if isinstance(name, str | Path)
        else safetensors.torch.load(file.read())
    )
    if isinstance(map_location, str | torch.device):
        weights = {key: tensor.to(map_location) for key, tensor in weights.items()}
    return weights
