"""Makes storages from a checkpoint's bytes, on the device that is asked for."""

from collections.abc import Mapping
from typing import Any

import torch

from .unpickling import Damaged, Refused, storage_dtype
from .unpickling.names import Named


def reference(value: Any) -> tuple[torch.dtype, str, str, int]:
    """A pickle's reference to a storage, checked (``persistent_id`` in torch.save).

    Returns:
        the dtype of its elements, its key, its device when it was saved, and the number
        of elements.

    Raises:
        Refused: it refers to something else.
        Damaged: it is damaged.
    """
    if not isinstance(value, tuple) or not value:
        raise Damaged("its pickle refers to something other than storages")
    if value[0] == "module":
        raise Refused("the source code of a module")
    # The old format adds which part of another storage is meant. torch has written None
    # there since 0.4.
    tag, cls, key, device, count, *rest = value
    dtype = storage_dtype(cls.name) if isinstance(cls, Named) else None
    if tag != "storage" or dtype is None:
        raise Refused(f"a storage of {getattr(cls, 'name', cls)!r:.80}")
    if (
        not isinstance(key, str)
        or not isinstance(device, str)
        or type(count) is not int
        or count < 0
        or rest not in ([], [None])
    ):
        raise Damaged("its pickle refers to something other than storages")
    return dtype, key, device, count


def place(
    storage: torch.UntypedStorage, device: str, map_location: Any
) -> torch.UntypedStorage:
    """A storage on the device that ``map_location`` says.

    Args:
        storage: on the CPU.
        device: on which it was when the file was written.
        map_location: as in ``torch.load``.

    Raises:
        RuntimeError: there is no such device.
    """
    if callable(map_location):
        placed = map_location(storage, device)
        if placed is not None:
            return placed
    elif isinstance(map_location, Mapping):
        device = str(map_location.get(device, device))
    elif map_location is not None:
        device = str(map_location)
    return torch.serialization.default_restore_location(storage, device)


def on_meta(map_location: Any) -> bool:
    """Whether tensors are asked for without their content."""
    return str(map_location) == "meta"


def swap_bytes(content: torch.Tensor, dtype: torch.dtype) -> None:
    """Change the byte order of a storage's content, in place.

    Args:
        content: (bytes,), uint8.
        dtype: of the elements.
    """
    width = dtype.itemsize // (2 if dtype.is_complex else 1)
    content.numpy().view(f"u{width}").byteswap(inplace=True)
