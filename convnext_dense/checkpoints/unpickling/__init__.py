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
names      what stands for names, and for objects that are not built
tensors    tensors, checked against the bytes that the file has for them
structure  checks the result: its types, depth and size
left_out   finds what was not built in the result
trust      whether the user allows Python's own machine instead

torch's ``weights_only=True`` has the same aim. It is not used, because the package
takes any torch: before 2.6 a crafted file gets around it (CVE-2025-32434); no version
bounds time and memory, or compares a tensor's claimed size with the bytes in the file;
and mmengine's checkpoints hold types that it has to be taught, whose states it then
copies into the objects unchecked.
"""

from collections.abc import Callable
from typing import Any

from .allowed import BatchTable, CheckpointTable
from .left_out import placeholders, report, require_built
from .machine import Machine
from .names import LeftOut, Named
from .refused import Damaged, Refused, TooMuch, WholeModel
from .structure import check
from .tensors import Storage, storage_dtype
from .trust import TRUST, trusted

__all__ = [
    "TRUST",
    "BatchTable",
    "CheckpointTable",
    "Damaged",
    "LeftOut",
    "Named",
    "Refused",
    "Storage",
    "TooMuch",
    "WholeModel",
    "placeholders",
    "report",
    "require_built",
    "storage_dtype",
    "trusted",
    "unpickle",
]


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
    if isinstance(content, LeftOut) and content.items:  # of a subclass of dict
        content = content.items
    check(content, filled.records)
    return content, machine.position
