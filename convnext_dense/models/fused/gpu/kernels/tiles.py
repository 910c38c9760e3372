"""Functions shared by the kernels: tiles of rows, drop path factors, normalization."""

import triton
import triton.language as tl

# Arguments that change with the image size: Triton must not specialize on their values,
# so that one compiled kernel serves all of them.
SIZES = ["M", "PIX", "START", "H", "W", "splits"]


@triton.jit
def load_rows(source, rows, columns, stride, M):
    """A tile (rows, columns) of a matrix of M rows; zero beyond the last row.

    ``source`` lies near the tile, so that 32-bit offsets suffice: 64-bit offsets would
    take two registers each, and a large tile would not fit in the registers.
    """
    place = rows[:, None] * stride + columns[None, :]
    return tl.load(source + place, mask=(rows < M)[:, None], other=0.0)


@triton.jit
def store_rows(target, rows, columns, stride, M, value):
    """Store a tile of a matrix of M rows; ``target`` lies near it."""
    place = rows[:, None] * stride + columns[None, :]
    tl.store(
        target + place, value.to(target.dtype.element_ty), mask=(rows < M)[:, None]
    )


@triton.jit
def factor_of_rows(drop, rows, PIX, M):
    """The drop path factor of each row, (rows, 1): drop[row // PIX]."""
    return tl.load(drop + rows // PIX, mask=rows < M, other=0.0)[:, None]


@triton.jit
def normalize(value, inside, C: tl.constexpr, EPS: tl.constexpr):
    """Normalize rows: y = (value - mean) rstd, rstd = 1 / sqrt(variance + EPS).

    Returns y, (rows, CP), and rstd, (rows,). ``inside`` masks the C true columns.
    """
    mean = tl.sum(value, 1) / C
    away = tl.where(inside, value - mean[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(away * away, 1) / C + EPS)
    return away * rstd[:, None], rstd


@triton.jit
def normalize_backward(grad, normed, rstd, C: tl.constexpr):
    """The gradient of ``normalize``'s input, dx = (dy - mean(dy) - y mean(dy y)) rstd.

    ``grad`` is dy and ``normed`` is y, (rows, CP); the means are over the C columns.
    """
    mean = tl.sum(grad, 1) / C
    along = tl.sum(grad * normed, 1) / C
    return (grad - mean[:, None] - normed * along[:, None]) * rstd[:, None]
