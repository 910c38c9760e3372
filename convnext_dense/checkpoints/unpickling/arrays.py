"""Builds NumPy's dtypes, numbers and arrays from their pickled states.

NumPy's own functions take more than data: a state can alter a dtype that all arrays
share, or have a text read as a pointer to an object.
"""

import re
from typing import Any

import numpy as np

from .limits import Limits
from .refused import Damaged, Refused
from .table import Unbuilt

# Truth values, numbers, and text of a fixed length. Others have pointers or fields.
_PLAIN = re.compile(r"[|<>=]?([biufc]\d{1,2}|[SU][1-9]\d{0,3}|\?)")
_OBJECT = ("O", "O8")
MOST_DIMENSIONS = 32


class UnbuiltDtype(Unbuilt):
    """A dtype without its byte order.

    Args:
        code: NumPy's, such as 'f4'.
    """

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not (_PLAIN.fullmatch(code) or code in _OBJECT):
            raise Refused(f"numpy.dtype({_short(code)})")
        self._dtype = np.dtype(code)

    def build(self, state: Any) -> np.dtype:
        """``state``: version, byte order, and what only other dtypes have."""
        match state:
            case (3, "<" | ">" | "|" | "=" as order, None, None, None, *_):
                return self._dtype.newbyteorder(order)
        raise Refused("a numpy.dtype with fields or metadata")


class UnbuiltArray(Unbuilt):
    """An array without its content."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def build(self, state: Any) -> np.ndarray:
        """``state``: version, shape, dtype, whether in Fortran's order, content."""
        match state:
            case (1, tuple() as shape, np.dtype() as dtype, bool() as fortran, content):
                order = "F" if fortran else "C"
                return array(content, dtype, shape, order, self._limits)
        raise Refused("a numpy.ndarray with an unknown state")


def array(
    content: Any, dtype: Any, shape: Any, order: Any, limits: Limits
) -> np.ndarray:
    """An array of its own memory.

    Args:
        content: the bytes, or a list of the objects if the dtype is 'O'.

    Raises:
        Refused: the dtype is not one of data.
        Damaged: the content has another size.
    """
    shape = (shape,) if isinstance(shape, int) else shape
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple):
        raise Refused("an array whose dtype or shape is none")
    count = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise Damaged("an array in it has a size that is no number")
        count *= size
    if len(shape) > MOST_DIMENSIONS or count.bit_length() > 62:
        raise Damaged("an array in it is larger than its content")
    if dtype.kind == "O":
        if not isinstance(content, list) or len(content) != count:
            raise Damaged("an array in it is larger than its content")
        limits.spend(count)
        result = np.empty(count, dtype)
        for index, value in enumerate(content):  # result[:] would look into lists
            result[index] = value
    else:
        if isinstance(content, str):  # Python 2's bytes
            content = content.encode("latin-1")
        if not isinstance(content, bytes | bytearray):
            raise Refused(f"an array of a {type(content).__name__}")
        if len(content) != count * dtype.itemsize:
            raise Damaged("an array in it is larger or smaller than its content")
        limits.spend(len(content))
        result = (
            np.frombuffer(content, dtype).copy() if content else np.empty(count, dtype)
        )
    return result.reshape(shape, order="F" if order == "F" else "C")


def number(dtype: Any, content: Any, limits: Limits) -> Any:
    """A number, or a text, with a NumPy type; also the one object of dtype 'O'."""
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        raise Refused("numpy.core.multiarray.scalar of an object")
    return array(content, dtype, (), "C", limits)[()]


def _short(value: Any) -> str:
    return repr(value[:40]) if isinstance(value, str) else type(value).__name__
