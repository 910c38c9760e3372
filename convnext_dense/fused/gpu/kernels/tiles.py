"""What kernels share to read and write tiles of rows."""

import triton
import triton.language as tl

# Arguments that change with the image: one compiled kernel serves all of their values.
SIZES = ["M", "PIX", "START", "H", "W", "splits"]


@triton.jit
def load_rows(source, first, count, columns, stride, M):
    """A tile of a matrix of M rows, zero beyond the last row.

    Its rows are ``first`` and on; ``count`` is 0, 1, ... So offsets within the tile have
    32 bits, and take half the registers.
    """
    source += (tl.zeros((1, 1), tl.int64) + first) * stride
    place = count[:, None] * stride + columns[None, :]
    return tl.load(source + place, mask=(first + count < M)[:, None], other=0.0)


@triton.jit
def store_rows(target, first, count, columns, stride, M, value):
    """Write a tile, in the matrix's own type; as ``load_rows``."""
    target += (tl.zeros((1, 1), tl.int64) + first) * stride
    place = count[:, None] * stride + columns[None, :]
    value = value.to(target.dtype.element_ty)
    tl.store(target + place, value, mask=(first + count < M)[:, None])


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
