"""Sums over rows, in a fixed order."""

import triton
import triton.language as tl

from .tiles import SIZES, factor_of_rows


@triton.jit
def reduce_parts(source, target, jobs, PARTS: tl.constexpr, CB: tl.constexpr):
    """Add up partial sums. A program computes CB columns of one sum.

    Args:
        source: the workspace with the partial sums, as fp32.
        target: the gradients, as fp32.
        jobs: five numbers for each program. They are: the place of the first partial
            sum in ``source``; the place of the sum in ``target``, or -1 minus its place
            in ``source``; how many partial sums there are; the distance from each to
            the next; how many columns are left from here on.
    """
    jobs += tl.program_id(0) * 5
    first, to = tl.load(jobs), tl.load(jobs + 1)
    parts, stride, left = tl.load(jobs + 2), tl.load(jobs + 3), tl.load(jobs + 4)
    part, columns = tl.arange(0, PARTS), tl.arange(0, CB)
    total = tl.zeros((PARTS, CB), tl.float32)
    for p in range(0, parts, PARTS):
        inside = (p + part < parts)[:, None] & (columns < left)[None, :]
        place = first + (p + part).to(tl.int64)[:, None] * stride + columns[None, :]
        total += tl.load(source + place, mask=inside, other=0.0)
    value = tl.sum(total, 0)
    if to >= 0:
        tl.store(target + to + columns, value, mask=columns < left)
    else:
        tl.store(source - 1 - to + columns, value, mask=columns < left)


@triton.jit(do_not_specialize=SIZES)
def column_parts(
    x, parts, drop, M, splits, PIX, C: tl.constexpr, CP: tl.constexpr,
    RB: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """Partial sums over the rows of x (M, C), to (splits, C); with drop path's factors
    if DROP. CP: C, padded."""
    split = tl.program_id(0)
    columns = tl.arange(0, CP)
    total = tl.zeros((RB, CP), tl.float32)
    for first in range(split * RB, M, splits * RB):
        rows = first + tl.arange(0, RB)
        inside = (rows < M)[:, None] & (columns < C)[None, :]
        place = rows.to(tl.int64)[:, None] * C + columns[None, :]
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        if DROP:
            value *= factor_of_rows(drop, rows, PIX, M)
        total += value
    tl.store(parts + split * C + columns, tl.sum(total, 0), mask=columns < C)


@triton.jit(do_not_specialize=SIZES)
def copy_rows(x, y, M, BLOCK: tl.constexpr):
    """y = x in y's type, M numbers."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < M, other=0.0)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=place < M)
