"""The launches of a stage for one input shape: written once, run many times.

Nothing in this module depends on a device. A ``Program`` is a list of launches. Their
arguments are numbers and ``Ref``s. A ``Ref`` is an offset from the start of a tensor;
the tensors are passed when the program runs. ``native_run`` runs it with the CUDA
driver, ``plain_run`` with Triton's launcher and PyTorch.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from .kernels import sums

f32 = torch.float32
SIZE = {f32: 4, torch.bfloat16: 2, torch.float16: 2, torch.int64: 8}

_MOST_PARTS = 256  # partial sums that one program adds; more are added in two steps
_GROUPS = 64  # sums after the first of the two steps
_COLUMNS = 64  # columns that one program adds


class Ref(NamedTuple):
    """An address: ``offset`` bytes after the start of the tensor called ``base``."""

    base: str
    offset: int
    dtype: torch.dtype

    def plus(self, elements: int) -> "Ref":
        """The address ``elements`` numbers further on."""
        return Ref(self.base, self.offset + elements * SIZE[self.dtype], self.dtype)


class Workspace:
    """Allocates places in one tensor of bytes, each at a multiple of 256 bytes.

    Attributes:
        used: bytes in use. Setting it back frees what was taken since.
        size: the most bytes that were in use at once.
    """

    def __init__(self, base: str):
        self.base, self.used, self.size = base, 0, 0

    def take(self, count: int, dtype: torch.dtype) -> Ref:
        """Room for ``count`` numbers."""
        place = Ref(self.base, self.used, dtype)
        self.used += -(-count * SIZE[dtype] // 256) * 256
        self.size = max(self.size, self.used)
        return place


class TritonLaunch(NamedTuple):
    """A Triton kernel.

    Attributes:
        kernel: the ``triton.jit`` function.
        grid: the number of programs in three dimensions.
        arguments: ``Ref``s and integers, passed at launch.
        constants: the values of the constexpr arguments, which come after them.
        warps, stages: Triton's ``num_warps`` and ``num_stages``.
    """

    kernel: Any  # Triton has no types
    grid: tuple[int, int, int]
    arguments: list
    constants: tuple
    warps: int
    stages: int


class ConvolutionLaunch(NamedTuple):
    """The depthwise convolution in CUDA C++; see ``depthwise_cuda.convolution``."""

    x: Ref
    weight: Ref
    bias: Ref | None
    g: Ref | None
    wide: Ref | None
    y: Ref
    shape: tuple[int, int, int, int]  # N, H, W, C
    flip: bool


class WeightGradientLaunch(NamedTuple):
    """The gradient of the depthwise weight in CUDA C++: partial sums (parts, C, 49)."""

    x: Ref
    grad: Ref
    partial: Ref
    shape: tuple[int, int, int, int]
    parts: int


class Product(NamedTuple):
    """A cuBLAS product, out = a b, or out += a b if ``add``: (m, k) (k, n) -> (m, n).

    With ``ta``, a is stored as (k, m). With ``tb``, b is stored as (n, k).
    """

    out: Ref
    a: Ref
    b: Ref
    m: int
    n: int
    k: int
    ta: bool
    tb: bool
    add: bool


Launch = TritonLaunch | ConvolutionLaunch | WeightGradientLaunch | Product


class Sum(NamedTuple):
    """A sum to compute: target = the sum of ``parts`` rows of ``columns`` fp32 numbers,
    which start at ``source`` and lie ``stride`` numbers apart."""

    source: Ref
    target: Ref
    parts: int
    columns: int
    stride: int


class Program:
    """Launches in order.

    Attributes:
        bases: the names of the tensors it reads and writes, in the order in which they
            are passed.
        launches: the launches.
        jobs: the table that ``sums.reduce_parts`` reads, five numbers a row.
        workspace: the bytes of workspace it needs.
        runner: a ``NativeRun`` or ``PlainRun`` of it, once it ran.
    """

    def __init__(self, bases: Sequence[str]):
        self.bases = tuple(bases)
        self.launches: list[Launch] = []
        self.jobs: list[Iterable[int]] = []
        self.workspace = 0
        self.runner: Any = None

    def triton(self, kernel, grid, arguments, constants, warps=4, stages=3) -> None:
        """Append a Triton kernel; the arguments are those of ``TritonLaunch``."""
        grid = (*grid, 1, 1)[:3]
        self.launches.append(
            TritonLaunch(kernel, grid, arguments, tuple(constants), warps, stages)
        )

    def product(self, out, a, b, m, n, k, ta=False, tb=False, add=False) -> None:
        """Append a cuBLAS product; the arguments are those of ``Product``."""
        self.launches.append(Product(out, a, b, m, n, k, ta, tb, add))

    def reduce(self, totals: Sequence[Sum], workspace: Workspace) -> None:
        """Append the launch that computes sums of parts in the workspace; two launches
        if a sum has many parts."""
        first: list[tuple] = []
        last: list[tuple] = []
        for source, target, parts, columns, stride in totals:
            place = source.offset // 4
            if parts > _MOST_PARTS:
                each = -(-parts // _GROUPS)
                groups = -(-parts // each)
                middle = workspace.take(groups * columns, f32).offset // 4
                for k in range(groups):
                    count = min(each, parts - k * each)
                    to = -1 - (middle + k * columns)
                    first.append(
                        (place + k * each * stride, to, count, columns, stride)
                    )
                place, parts, stride = middle, groups, columns
            to = target.offset // 4
            if target.base == workspace.base:
                to = -1 - to
            last.append((place, to, parts, columns, stride))
        for rows in (first, last):
            if rows:
                self._reduce(rows, workspace.base)

    def _reduce(self, rows, base) -> None:
        """Append one launch of ``sums.reduce_parts`` with these jobs."""
        if len(self.jobs) % 2:  # the jobs of a launch begin at a multiple of 16 bytes
            self.jobs.append([0] * 5)
        start = len(self.jobs)
        for place, to, parts, columns, stride in rows:
            for c in range(0, columns, _COLUMNS):
                column_to = to + c if to >= 0 else to - c
                self.jobs.append((place + c, column_to, parts, stride, columns - c))
        arguments = [
            Ref(base, 0, f32),
            Ref("grads", 0, f32),
            Ref("jobs", 40 * start, torch.int64),
        ]
        grid = (len(self.jobs) - start,)
        self.triton(sums.reduce_parts, grid, arguments, (16, _COLUMNS))
