"""What kernels share to read and write tiles of rows."""

import triton
import triton.language as tl

# Arguments that change with the image: one compiled kernel serves all of their values.
SIZES = ["M", "PIX", "START", "H", "W", "splits"]


@triton.jit
def load_rows(source, rows, columns, stride, M):
    """A tile of a matrix of M rows, zero beyond the last row.

    ``source`` is near the tile, so that 32 bits reach all of it: 64 bits would take two
    registers for each number, and a large tile would not fit in the registers.
    """
    place = rows[:, None] * stride + columns[None, :]
    return tl.load(source + place, mask=(rows < M)[:, None], other=0.0)


@triton.jit
def store_rows(target, rows, columns, stride, M, value):
    """Write a tile of a matrix of M rows, in the matrix's own type, near ``target``."""
    place = rows[:, None] * stride + columns[None, :]
    tl.store(
        target + place, value.to(target.dtype.element_ty), mask=(rows < M)[:, None]
    )


@triton.jit
def factor_of_rows(drop, rows, PIX, M):
    """Drop path's factor of each row's image: (rows, 1). PIX: pixels of an image."""
    return tl.load(drop + rows // PIX, mask=rows < M, other=0.0)[:, None]


@triton.jit
def normalize(value, inside, C: tl.constexpr, EPS: tl.constexpr):
    """Rows without mean, with unit variance; and the reciprocal standard deviations."""
    mean = tl.sum(value, 1) / C
    away = tl.where(inside, value - mean[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(away * away, 1) / C + EPS)
    return away * rstd[:, None], rstd


@triton.jit
def normalize_backward(grad, normed, rstd, C: tl.constexpr):
    """The gradient of ``normalize``'s input, from that of its output."""
    mean = tl.sum(grad, 1) / C
    along = tl.sum(grad * normed, 1) / C
    return (grad - mean[:, None] - normed * along[:, None]) * rstd[:, None]
