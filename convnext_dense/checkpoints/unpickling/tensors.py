"""Builds tensors, each checked against the storage that the file has for it."""

from typing import Any, NamedTuple

import torch

from .names import LeftOut, Named
from .refused import Damaged, Refused, TooMuch

MOST_DIMENSIONS = 64
MOST_TENSORS = 200_000
# Elements that a file's tensors may have beyond those stored for them. ``expand`` makes
# such tensors; they are as large as others as soon as they are copied.
MOST_EXPANDED = 2**27

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
    # Of quantised tensors, which are left out.
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}
# Of torch's dtypes those that hold one number in an element, as far as this torch has
# them.
DTYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32"),
        *("int64", "float16", "bfloat16", "float32", "float64", "complex32"),
        *("complex64", "complex128", "float8_e4m3fn", "float8_e4m3fnuz"),
        *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if hasattr(torch, name)
}


def storage_dtype(name: str) -> torch.dtype | None:
    """The dtype of a class of storages; None if the name is of no such class."""
    module, _, plain = name.rpartition(".")
    if module in ("torch", "torch.cuda", "torch.storage"):
        return _STORAGES.get(plain)
    return None


class Storage(NamedTuple):
    """The memory of one or several tensors.

    Attributes:
        untyped: the bytes.
        dtype: of the tensors.
    """

    untyped: torch.UntypedStorage
    dtype: torch.dtype


class Tensors:
    """Builds the tensors of one file, and counts them."""

    def __init__(self) -> None:
        self._count = 0
        self._expanded = 0

    def tensor(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any = False,
        backward_hooks: Any = None,
        dtype: Any = None,
        metadata: Any = None,
    ) -> torch.Tensor:
        """A view of a storage, as ``torch._utils._rebuild_tensor_v2`` makes it.

        Args:
            offset: of the first element, in elements.
            size: of each dimension.
            stride: of each dimension, in elements.
            backward_hooks: they are functions, and not used.
            dtype: if the storage's class does not say it.

        Raises:
            Refused: an argument is not of data.
            Damaged: the storage is too small.
        """
        if not isinstance(storage, Storage):
            raise Refused(f"a tensor of a {type(storage).__name__}")
        dtype = storage.dtype if dtype is None else dtype
        if isinstance(dtype, Named):
            raise Refused(f"a tensor of {dtype.name}")
        if not isinstance(dtype, torch.dtype):
            raise Refused(f"a tensor with a {type(dtype).__name__} as its dtype")
        numbers = [offset, *_numbers(size), *_numbers(stride)]
        if any(type(number) is not int or number < 0 for number in numbers):
            raise Damaged("a tensor in it has sizes that are no numbers")
        if len(size) != len(stride) or len(size) > MOST_DIMENSIONS:
            raise Damaged("a tensor in it has more sizes than strides")
        elements, last = 1, offset
        for length, step in zip(size, stride, strict=True):
            elements *= length
            last += (length - 1) * step
        stored = storage.untyped.nbytes() // dtype.itemsize
        if (elements and last >= stored) or max(numbers).bit_length() > 62:
            raise Damaged("a tensor in it is larger than what is stored for it")
        self._note(elements - stored)
        tensor = torch.empty(0, dtype=dtype, device=storage.untyped.device)
        tensor.set_(storage.untyped, offset, tuple(size), tuple(stride))
        if requires_grad is True:
            tensor.requires_grad_()
        return tensor

    def _note(self, expanded: int) -> None:
        self._count += 1
        self._expanded += max(expanded, 0)
        if self._count > MOST_TENSORS:
            raise TooMuch(f"it has over {MOST_TENSORS:,} tensors")
        if self._expanded > MOST_EXPANDED:
            raise TooMuch(
                "its tensors have far more elements than are stored for them; save "
                "copies of tensors that expand() made"
            )


def _numbers(values: Any) -> tuple:
    if not isinstance(values, tuple | list):
        raise Damaged("a tensor in it has sizes that are no numbers")
    return tuple(values)


def parameter(
    data: Any, requires_grad: Any = True, *_: Any
) -> torch.nn.Parameter | LeftOut:
    """A parameter, as ``torch._utils._rebuild_parameter`` makes it; without hooks.

    It is left out if its values are, which are sparse or quantised.
    """
    if isinstance(data, LeftOut):
        return data
    if type(data) is not torch.Tensor:
        raise Refused(f"a parameter of a {type(data).__name__}")
    return torch.nn.Parameter(data, requires_grad=requires_grad is True)
