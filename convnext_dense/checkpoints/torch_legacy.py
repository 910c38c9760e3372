"""Reads files of torch.save's old format (``_use_new_zipfile_serialization=False``).

Such a file is a row of pickles: a magic number, the version, facts about the machine,
the content, and the keys of the storages. The bytes of each storage follow, after their
number (torch/serialization.py, ``_legacy_save``). torch.load makes each storage as
large as the content's pickle says, before it knows how many bytes there are, and leaves
those that are not among the keys as they are: filled with whatever was in memory.
"""

import sys
from typing import Any, NamedTuple

import torch

from .storages import on_meta, place, reference, swap_bytes
from .unpickling import CheckpointTable, Damaged, Storage, unpickle
from .unpickling.names import Unknown

FIRST = b"\x80"  # byte of every file: a pickle of protocol 2 or later
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_START = 32  # bytes, in which the magic number is


def is_legacy(start: bytes) -> bool:
    """Whether a pickle with these first bytes is of ``torch.save``."""
    return _MAGIC.to_bytes(10, "little") in start[:_START]


class _Claim(NamedTuple):
    """What the content's pickle says of a storage."""

    dtype: torch.dtype
    device: str
    elements: int


def read(
    data: Any, map_location: Any, table: type[CheckpointTable] = CheckpointTable
) -> Any:
    """The content of a file.

    Args:
        data: ``bytes`` or an ``mmap``.
        map_location: as in ``torch.load``.

    Raises:
        Refused: it asks for something that is not data.
        Exception: it is damaged.
    """
    if not is_legacy(data[:_START]):
        content, _ = unpickle(data)
        if not isinstance(content, dict):  # names and NumPy arrays, as of detectron2
            raise Damaged("it is a pickle, and not one of torch.save, without weights")
        return content
    magic, position = unpickle(data)
    if magic != _MAGIC:
        raise Damaged("it is a pickle, and not one of torch.save")
    version, position = unpickle(data, start=position)
    machine, position = unpickle(data, start=position)
    if version != _VERSION or not isinstance(machine, dict):
        raise Damaged(f"torch.save wrote it in an unknown version, {version!r:.40}")

    claims: dict[str, _Claim] = {}

    def claim(value: Any) -> Storage | Unknown:
        if (cls := _class_of_module(value)) is not None:
            return cls
        dtype, key, device, count = reference(value)
        if claims.setdefault(key, _Claim(dtype, device, count)).elements != count:
            raise Damaged(f"a storage in it, {key:.40}, has two sizes")
        size = count * dtype.itemsize
        if size > len(data):
            raise Damaged("it is cut short")
        return Storage(torch.UntypedStorage(size, device="meta"), dtype)

    # The content needs the bytes that come after it: it is read twice.
    content_at = position
    content, position = unpickle(data, claim, table, position)
    keys, position = unpickle(data, start=position)
    if (
        not isinstance(keys, list)
        or set(keys) != claims.keys()
        or (len(keys) > len(claims))
    ):
        raise Damaged("it lists other storages than its tensors use")
    if on_meta(map_location):
        return content

    swapped = (machine.get("little_endian") is not False) != (sys.byteorder == "little")
    storages = {}
    for key in keys:
        dtype, device, count = claims[key]
        size = count * dtype.itemsize
        start = position + 8
        position = start + size
        if position > len(data):
            raise Damaged("it is cut short")
        stored = int.from_bytes(
            data[start - 8 : start], "big" if swapped else sys.byteorder
        )
        if stored != count:
            raise Damaged(f"a storage in it, {key:.40}, has another size")
        values = torch.empty(size, dtype=torch.uint8)
        values.numpy()[:] = memoryview(data)[start:position]
        if swapped:
            swap_bytes(values, dtype)
        storages[key] = place(values.untyped_storage(), device, map_location)

    def load(value: Any) -> Storage | Unknown:
        if (cls := _class_of_module(value)) is not None:
            return cls
        dtype, key, _, _ = reference(value)
        return Storage(storages[key], dtype)

    return unpickle(data, load, table, content_at)[0]


def _class_of_module(value: Any) -> Unknown | None:
    """The class of a layer that is left out; its source code is beside it in files."""
    if isinstance(value, tuple) and len(value) == 4 and value[0] == "module":
        return value[1] if isinstance(value[1], Unknown) else None
    return None
