"""The launches of a stage for one shape, in order: written down once, run many times.

Nothing here depends on a device. A ``Program`` is a list of launches. Their arguments
are numbers and ``Ref``s. A ``Ref`` is an offset from the start of a tensor, which the
program is given when it runs. ``native_run`` runs it by the CUDA driver, ``plain_run``
by Triton's own launches and PyTorch.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch

from .kernels import sums

f32 = torch.float32
SIZE = {f32: 4, torch.bfloat16: 2, torch.float16: 2, torch.int64: 8}

_MOST_PARTS = 256  # partial sums that one program adds up; more go by way of groups
_GROUPS = 64
_COLUMNS = 64  # of a sum, in one program


class Ref(NamedTuple):
    """A place: ``offset`` bytes after the start of the tensor called ``base``."""

    base: str
    offset: int
    dtype: torch.dtype

    def plus(self, elements: int) -> "Ref":
        return Ref(self.base, self.offset + elements * SIZE[self.dtype], self.dtype)


class Workspace:
    """Places in one tensor of bytes, each at a multiple of 256.

    Attributes:
        used: bytes in use; set back to give room to others.
        size: the most that were in use.
    """

    def __init__(self, base: str):
        self.base, self.used, self.size = base, 0, 0

    def take(self, count: int, dtype: torch.dtype) -> Ref:
        place = Ref(self.base, self.used, dtype)
        self.used += -(-count * SIZE[dtype] // 256) * 256
        self.size = max(self.size, self.used)
        return place


class TritonLaunch(NamedTuple):
    """``constants``: the arguments after ``arguments``, by which it is compiled."""

    kernel: Callable
    grid: tuple[int, int, int]
    arguments: list
    constants: tuple
    warps: int
    stages: int


class ConvolutionLaunch(NamedTuple):
    """The depthwise convolution in CUDA C++; ``depthwise.convolution`` says of what."""

    x: Ref
    weight: Ref
    bias: Ref | None
    g: Ref | None
    wide: Ref | None
    y: Ref
    shape: tuple[int, int, int, int]  # N, H, W, C
    flip: bool


class WeightGradientLaunch(NamedTuple):
    """The gradient of its weight in CUDA C++: partial sums, (parts, C, 49)."""

    x: Ref
    grad: Ref
    partial: Ref
    shape: tuple[int, int, int, int]
    parts: int


class Product(NamedTuple):
    """cuBLAS: out (m, n) = a b, plus ``out`` if ``add``. ``ta``: a lies as (k, m);
    ``tb``: b lies as (n, k)."""

    out: Ref
    a: Ref
    b: Ref
    m: int
    n: int
    k: int
    ta: bool
    tb: bool
    add: bool


class Sum(NamedTuple):
    """``parts`` partial sums of ``columns`` numbers, ``stride`` numbers apart."""

    source: Ref
    target: Ref
    parts: int
    columns: int
    stride: int


class Program:
    """Launches in order.

    Attributes:
        bases: the names of the tensors it needs, in the order in which it gets them.
        launches: what is launched.
        jobs: the table that ``sums.reduce_parts`` reads, five numbers a row.
        workspace: bytes that it needs there.
    """

    def __init__(self, bases: Sequence[str]):
        self.bases = tuple(bases)
        self.launches: list[NamedTuple] = []
        self.jobs: list[Iterable[int]] = []
        self.workspace = 0
        self.runner: Any = None  # of native_run or plain_run

    def triton(self, kernel, grid, arguments, constants, warps=4, stages=3) -> None:
        grid = (*grid, 1, 1)[:3]
        self.launches.append(
            TritonLaunch(kernel, grid, arguments, tuple(constants), warps, stages)
        )

    def product(self, out, a, b, m, n, k, ta=False, tb=False, add=False) -> None:
        self.launches.append(Product(out, a, b, m, n, k, ta, tb, add))

    def reduce(self, wanted: Sequence[Sum], workspace: Workspace) -> None:
        """Add up partial sums that lie in the workspace, by one launch, or by two where
        there are many parts."""
        first: list[tuple] = []
        last: list[tuple] = []
        for source, target, parts, columns, stride in wanted:
            place = source.offset // 4
            if parts > _MOST_PARTS:
                each = -(-parts // _GROUPS)
                groups = -(-parts // each)
                middle = workspace.take(groups * columns, f32).offset // 4
                for k in range(groups):
                    own = min(each, parts - k * each)
                    to = -1 - (middle + k * columns)
                    first.append((place + k * each * stride, to, own, columns, stride))
                place, parts, stride = middle, groups, columns
            to = target.offset // 4
            if target.base == workspace.base:
                to = -1 - to
            last.append((place, to, parts, columns, stride))
        for rows in (first, last):
            if rows:
                self._reduce(rows, workspace.base)

    def _reduce(self, rows, base) -> None:
        if len(self.jobs) % 2:  # each launch's begin at a multiple of 16 bytes
            self.jobs.append([0] * 5)
        start = len(self.jobs)
        for place, to, parts, columns, stride in rows:
            for c in range(0, columns, _COLUMNS):
                own_to = to + c if to >= 0 else to - c
                self.jobs.append((place + c, own_to, parts, stride, columns - c))
        arguments = [
            Ref(base, 0, f32),
            Ref("grads", 0, f32),
            Ref("jobs", 40 * start, torch.int64),
        ]
        grid = (len(self.jobs) - start,)
        self.triton(sums.reduce_parts, grid, arguments, (16, _COLUMNS))
