"""Kernels of a block's products for maps with many channels, and of the residual."""

import triton
import triton.language as tl

from .gelu import gelu, gelu_and_slope
from .tiles import SIZES, factor_of_rows, store_rows


@triton.jit
def _tile_of(pid, M, BM: tl.constexpr, WIDE: tl.constexpr):
    """The band of rows and the block of columns of program ``pid``.

    There are WIDE blocks of columns. Eight bands run at a time and share the weights in
    the cache.
    """
    group: tl.constexpr = 8 * WIDE
    high = tl.minimum(tl.cdiv(M, BM) - pid // group * 8, 8)
    return pid // group * 8 + pid % group % high, pid % group // high


@triton.jit(do_not_specialize=SIZES)
def product(
    a, w, bias, out, narrow, M, N: tl.constexpr,
    K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    ACT: tl.constexpr, GELU: tl.constexpr, COPY: tl.constexpr,
):  # fmt: skip
    """out = a w^T + bias, or gelu(a w^T + bias) if ACT; also to ``narrow`` if COPY.

    a: (M, K), work. w: (N, K), work. bias: (N,), fp32. out, narrow: (M, N), any float
    type. BN divides N and BK divides K. Grid: (M / BM times N / BN,).
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
    """The hidden rows and their gradient, for the backward pass of a block.

        h = y w1^T + b1      a = gelu(h) f        d = (g w2) gelu'(h) f
        parts_b1[band] = sum over the BM rows of the band of d

    y is the norm's output and g the gradient of the block's output. f is 1, or with
    DROP the drop path factor of each row's image; so the gradient of w2 is g^T a.

    y, g: (M, C), work. w1: (4C, C), work. b1: (4C,), fp32. w2: (C, 4C), work. a, d:
    (M, 4C), work. parts_b1: (M / BM, 4C), fp32. START: the index of the first row among
    all rows of the map. BH divides 4C and BK divides C. Grid: (M / BM times 4C / BH,).
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
    """out = f (branch + bias), + x if ADD; also to ``narrow`` if COPY.

    f is 1, or with DROP the drop path factor of each row's image. branch: (M, C), work.
    bias: (C,), fp32. x, out: (M, C), stream; out may be x. narrow: (M, C), work.
    Grid: (M / RB, C / CB).
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
