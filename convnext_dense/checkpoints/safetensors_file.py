"""Reads safetensors files, after a look at their headers.

safetensors itself checks that the tensors fit the file. Its header may be 100 MB of
JSON, for which a file with nothing else keeps it busy for minutes.

A file of this package can have a run's config and classes in its header, under
``META``: the entries ``cfg`` and ``dataset_meta`` that mmengine writes beside the
weights, as JSON. So a detector is one file, without a pickle.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch

from convnext_dense.utils.json_files import parse_json

from .unpickling import TooMuch

# 40,000 entries. The largest models have some thousand tensors.
MOST_HEADER = 4 * 2**20  # bytes
META = "convnext_dense"  # the key of the header's __metadata__
_KEPT = ("cfg", "dataset_meta")  # of what mmengine writes beside the weights


def is_safetensors(start: bytes) -> bool:
    """Whether a file with these first 9 bytes is one: a length, then JSON."""
    return start[8:9] == b"{"


def read(file: BinaryIO, map_location: Any) -> dict[str, Any]:
    """The tensors of a file.

    Args:
        file: at its start.
        map_location: as in ``torch.load``; the format does not note a device, so that
            only a device itself has an effect.

    Returns:
        names and tensors. If the header has a run's config: a dict with the entries
        ``meta`` and ``state_dict``, as in mmengine's checkpoints.

    Raises:
        TooMuch: its header is longer than that of any model.
        Exception: it is damaged.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise TooMuch(f"its header has {length:,} bytes, more than any model's")
    header = file.read(length)
    file.seek(0)
    name = getattr(file, "name", None)
    weights = (
        safetensors.torch.load_file(name)
        if isinstance(name, str | Path)
        else safetensors.torch.load(file.read())
    )
    if isinstance(map_location, str | torch.device):
        weights = {key: tensor.to(map_location) for key, tensor in weights.items()}
    meta = _meta(header)
    return weights if meta is None else dict(meta=meta, state_dict=weights)


def _meta(header: bytes) -> dict | None:
    """What ``metadata`` wrote into a header; None if it wrote nothing."""
    if f'"{META}"'.encode() not in header:
        return None
    entries = parse_json(header.decode(), "its header").get("__metadata__")
    text = entries.get(META) if isinstance(entries, dict) else None
    if text is None:
        return None  # a tensor has the name
    meta = parse_json(text, f"the entry {META} of its header")
    if not isinstance(meta, dict):
        raise ValueError(f"the entry {META} of its header is not an object")
    return meta


def metadata(meta: Mapping | None) -> dict[str, str]:
    """The ``__metadata__`` of a header, with a run's config and classes.

    Args:
        meta: what mmengine writes beside the weights; None for weights alone. Its
            ``cfg`` and ``dataset_meta`` are kept, as far as JSON has their values.
    """
    kept: dict[str, Any] = {
        key: value for key in _KEPT if (value := as_json((meta or {}).get(key)))
    }
    return {"format": "pt", **({META: json.dumps(kept)} if kept else {})}


def as_json(value: Any) -> Any:
    """A value with lists for tuples and arrays; None for what JSON does not have.

    >>> as_json({"classes": ("a", "b"), "file": Path("x")})
    {'classes': ['a', 'b'], 'file': None}
    """
    if hasattr(value, "tolist"):  # of numpy or torch
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    return value if isinstance(value, str | int | float) else None
