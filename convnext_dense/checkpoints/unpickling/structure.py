"""Checks what was unpickled: its types, its depth and its size.

A pickle can put the same tuple twice into another, that one twice into a third, and so
on. Forty of them take 200 bytes, and printing, copying or comparing the last takes 2^40
steps.
"""

import argparse
import pathlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from .names import LeftOut, Named
from .refused import Refused, TooMuch, WholeModel
from .tensors import Storage

DEEPEST = 100  # mmengine's checkpoints have 20 levels
# Entries in all, each as often as it can be reached.
MOST_ENTRIES = 10_000_000

# NumPy and torch read memory at the address in such an attribute, and the entries of a
# ConfigDict are its attributes.
ADDRESSES = ("__array", "__cuda_array", "__dlpack")

_LEAVES = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray),
    *(torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device),
    *(torch.layout, np.ndarray, np.dtype, np.generic, pathlib.PurePath, HistoryBuffer),
)


class _Walk:
    """Counts the entries below objects; an object's are counted once.

    Args:
        records: further classes of objects with attributes.
        leave: whether names, storages and what stands for objects may be among them.
    """

    def __init__(self, records: tuple[type, ...], leave: bool) -> None:
        self._records = (argparse.Namespace, *records)
        self._leaves = (*_LEAVES, Named, Storage) if leave else _LEAVES
        self._entries: dict[int, int] = {}  # by the object's id; 0 while it is counted

    def entries(self, value: Any, depth: int = 0) -> int:
        """How many entries there are at and below ``value``.

        Raises:
            Refused: an object's type is not one of data.
            TooMuch: they are nested too deeply, or are in a circle, or are too many.
        """
        children = self._children(value)
        if children is None:
            return 1
        known = self._entries.get(id(value))
        if known is not None:
            if known == 0:
                raise TooMuch("an object in it contains itself")
            return known
        if depth == DEEPEST:
            raise TooMuch(f"it is nested more than {DEEPEST} levels deep")
        self._entries[id(value)] = 0
        count = 1
        for child in children:
            count += self.entries(child, depth + 1)
        if count > MOST_ENTRIES:
            raise TooMuch(f"it has over {MOST_ENTRIES:,} entries")
        self._entries[id(value)] = count
        return count

    def _children(self, value: Any) -> Iterable | None:
        """The objects inside ``value``; None if it is none of ours to look into."""
        cls = type(value)
        if cls in (dict, OrderedDict, ConfigDict, defaultdict, Counter):
            for key in dict.keys(value):
                if isinstance(key, str) and key.startswith(ADDRESSES):
                    raise Refused(f"the entry {key!r:.40}")
            attributes = vars(value).values() if cls is OrderedDict else ()
            return [*dict.keys(value), *dict.values(value), *attributes]
        if cls in (list, tuple, set, frozenset):
            return value
        if cls is np.ndarray and value.dtype.kind == "O":
            return value.ravel().tolist()
        if cls in self._records:
            return vars(value).values()
        if cls is LeftOut and value.items:
            return value.items.values()
        if cls is slice:
            return [value.start, value.stop, value.step]
        if not isinstance(value, self._leaves):
            raise Refused(getattr(value, "name", cls.__name__))
        return None


def check(content: Any, records: tuple[type, ...] = ()) -> None:
    """Check that an object holds only data, and not more than can be gone through.

    A dict may have objects beside its data that were left out.

    Args:
        records: further classes that it may hold.

    Raises:
        WholeModel: it is an instance of a ``torch.nn.Module``.
        Refused: it holds an object of another type.
        TooMuch: it is nested too deeply, is in itself, or has too many entries.
    """
    if isinstance(content, LeftOut) and content.is_model:
        raise WholeModel(content.name)
    _Walk(records, leave=isinstance(content, dict)).entries(content)
