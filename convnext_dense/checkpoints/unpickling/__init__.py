"""Reads pickles as data: nothing in one is imported, called or changed.

A ``.pth`` file holds a pickle, a program for a small machine with a stack. Python's own
machine imports and calls whatever the program names. This one has the same
instructions, except those that only code needs, and looks up each name in a list of
our own:

machine    the instructions, with a bound for each length and count
limits     what calls may cost, and what may be a key
allowed    what checkpoints and files with a batch may ask for
table      what the machine needs of such a list
objects    how each object is built
arrays     NumPy's arrays and numbers
tensors    tensors, checked against the bytes that the file has for them
structure  checks the result: its types, depth and size

torch's ``weights_only=True`` has the same aim. It is not used, because the package
takes any torch: before 2.6 a crafted file gets around it (CVE-2025-32434); no version
bounds time and memory, or compares a tensor's claimed size with the bytes in the file;
and mmengine's checkpoints hold types that it has to be taught, whose states it then
copies into the objects unchecked.
"""

import os
from collections.abc import Callable
from typing import Any

from .allowed import BatchTable, CheckpointTable
from .machine import Machine
from .refused import Damaged, Refused, TooMuch
from .structure import check
from .tensors import Storage, storage_dtype

__all__ = [
    "TRUST",
    "BatchTable",
    "CheckpointTable",
    "Damaged",
    "Refused",
    "Storage",
    "TooMuch",
    "storage_dtype",
    "trusted",
    "unpickle",
]

TRUST = "CONVNEXT_DENSE_TRUST_CHECKPOINT"


def trusted() -> bool:
    """Whether the user has asked for unrestricted unpickling."""
    return os.environ.get(TRUST) == "1"


def unpickle(
    data: Any,
    persistent: Callable[[Any], Any] | None = None,
    table: type[CheckpointTable] = CheckpointTable,
    start: int = 0,
) -> tuple[Any, int]:
    """Read one pickle.

    Args:
        data: ``bytes`` or an ``mmap``.
        persistent: returns the ``Storage`` that a reference of the pickle means.
        table: ``CheckpointTable``, or ``BatchTable`` for images and their ground truth.
        start: where the pickle begins in ``data``.

    Returns:
        its content, and where it ends in ``data``.

    Raises:
        Refused: it asks for something that is not data.
        TooMuch: it asks for more time or memory than its size explains.
        Damaged: it is damaged.
    """
    filled = table()
    machine = Machine(data, filled, persistent, start)
    content = machine.run()
    check(content, filled.records)
    return content, machine.position
