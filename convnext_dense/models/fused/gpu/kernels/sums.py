"""Kernels that add rows in a fixed order, and copy them."""

import triton
import triton.language as tl

from .tiles import SIZES, factor_of_rows


@triton.jit
def reduce_parts(source, target, jobs, PARTS: tl.constexpr, CB: tl.constexpr):
    """target[to + c] = sum over p of source[first + p stride + c], c = 0 .. CB - 1.

    Grid: (jobs,). A program computes CB columns of one sum, PARTS rows at a time.

    Args:
        source: the workspace with the partial sums, fp32.
        target: the gradients, fp32.
        jobs: int64, five numbers for each program: ``first``, the index of the first
            partial sum in ``source``; ``to``, the index of the sum in ``target``, or -1
            minus its index in ``source``; the number of partial sums; ``stride``, the
            distance from one to the next; the number of columns left from here on.
    """
    jobs += tl.program_id(0) * 5
    first, to = tl.load(jobs), tl.load(jobs + 1)
    parts, stride, left = tl.load(jobs + 2), tl.load(jobs + 3), tl.load(jobs + 4)
    index, columns = tl.arange(0, PARTS), tl.arange(0, CB)
    total = tl.zeros((PARTS, CB), tl.float32)
    for p in range(0, parts, PARTS):
        inside = (p + index < parts)[:, None] & (columns < left)[None, :]
        place = first + (p + index).to(tl.int64)[:, None] * stride + columns[None, :]
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
    """parts[s] = sum over the rows r of split s of x[r], times drop[r // PIX] if DROP.

    x: (M, C), any float type. parts: (splits, C), fp32. Grid: (splits,).
    """
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
    """y = x in the type of y. x, y: M numbers. Grid: (M / BLOCK,)."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < M, other=0.0)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=place < M)
