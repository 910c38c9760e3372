"""Those of a block's products that Triton computes where maps have many channels."""

import triton
import triton.language as tl

from .gelu import gelu, gelu_and_slope
from .tiles import SIZES, factor_of_rows, store_rows


@triton.jit
def _tile_of(pid, M, BM: tl.constexpr, WIDE: tl.constexpr):
    """Which band of rows and which columns program ``pid`` has, of WIDE blocks of
    columns: eight bands at a time share the weights in cache."""
    group: tl.constexpr = 8 * WIDE
    high = tl.minimum(tl.cdiv(M, BM) - pid // group * 8, 8)
    return pid // group * 8 + pid % group % high, pid % group // high


@triton.jit(do_not_specialize=SIZES)
def product(
    a, w, bias, out, narrow, M, N: tl.constexpr,
    K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    ACT: tl.constexpr, GELU: tl.constexpr, COPY: tl.constexpr,
):  # fmt: skip
    """out (M, N) = a w^T + bias, through GELU if ACT. a: (M, K), w: (N, K).

    If COPY, ``narrow`` has it too, in its own type.
    """
    band, block = _tile_of(tl.program_id(0), M, BM, N // BN)
    first, rows = band * BM, tl.arange(0, BM)
    left = M - first
    columns = block * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    a += first.to(tl.int64) * K + tl.minimum(rows, left - 1)[:, None] * K + k[None, :]
    w += columns[None, :] * K + k[:, None]
    for _ in range(0, K // BK):
        total = tl.dot(tl.load(a), tl.load(w), total)
        a += BK
        w += BK
    total += tl.load(bias + columns)[None, :]
    if ACT:
        total = gelu(total, GELU)
    place = first.to(tl.int64) * N
    store_rows(out + place, rows, columns, N, left, total)
    if COPY:
        store_rows(narrow + place, rows, columns, N, left, total)


@triton.jit(do_not_specialize=SIZES)
def hidden_backward_product(
    y, g, w1, b1, w2, a, d, parts_b1, drop, M, PIX, START,
    C: tl.constexpr, BM: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr,
    GELU: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """A (BM, BH) tile of a, GELU's output, and of d, the gradient of GELU's input.

    y is the norm's output, g the gradient of the block's output. With DROP both a and d
    are multiplied by drop path's factor; g is not, and the gradient of w2 is g^T a.
    START: the number of the first row among all rows of the map.
    """
    H: tl.constexpr = 4 * C
    band, block = _tile_of(tl.program_id(0), M, BM, H // BH)
    first, rows = band * BM, tl.arange(0, BM)
    left = M - first
    hidden = block * BH + tl.arange(0, BH)
    k = tl.arange(0, BK)
    inner = tl.minimum(rows, left - 1)[:, None] * C + k[None, :]
    y += first.to(tl.int64) * C + inner
    g += first.to(tl.int64) * C + inner
    w1 += hidden[None, :] * C + k[:, None]
    w2 += k[:, None] * H + hidden[None, :]
    t = tl.zeros((BM, BH), tl.float32)
    s = tl.zeros((BM, BH), tl.float32)
    for _ in range(0, C // BK):
        t = tl.dot(tl.load(y), tl.load(w1), t)
        s = tl.dot(tl.load(g), tl.load(w2), s)
        y += BK
        g += BK
        w1 += BK
        w2 += BK * H
    activated, slope = gelu_and_slope(t + tl.load(b1 + hidden)[None, :], GELU)
    s = tl.where((rows < left)[:, None], s * slope, 0.0)
    if DROP:
        image = (START + first + rows) // PIX
        share = tl.load(drop + image, mask=rows < left, other=0.0)[:, None]
        s *= share
        activated *= share
    place = first.to(tl.int64) * H
    store_rows(a + place, rows, hidden, H, left, activated)
    store_rows(d + place, rows, hidden, H, left, s)
    tl.store(parts_b1 + band * H + hidden, tl.sum(s, 0))


@triton.jit(do_not_specialize=SIZES)
def residual(
    branch, bias, x, out, narrow, drop, M, PIX, C: tl.constexpr, RB: tl.constexpr,
    CB: tl.constexpr, DROP: tl.constexpr, ADD: tl.constexpr, COPY: tl.constexpr,
):  # fmt: skip
    """out = factor (branch + bias), plus x if ADD. ``out`` may be x.

    The factor is drop path's, or 1. If COPY, ``narrow`` gets the same in its own type.
    """
    rows = tl.program_id(0) * RB + tl.arange(0, RB)
    c = tl.program_id(1) * CB + tl.arange(0, CB)
    inside = (rows < M)[:, None] & (c < C)[None, :]
    place = rows[:, None].to(tl.int64) * C + c[None, :]
    value = tl.load(branch + place, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + c, mask=c < C, other=0.0)[None, :]
    if DROP:
        value *= factor_of_rows(drop, rows, PIX, M)
    if ADD:
        value += tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)
    if COPY:
        tl.store(narrow + place, value.to(narrow.dtype.element_ty), mask=inside)
