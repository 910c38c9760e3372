"""Kernels that fuse both products of a block and GELU, for maps with few channels.

The hidden rows, (M, 4C), are never in memory. Triton needs powers of two: the C
channels are computed as C0 + C1, two powers of two (96 = 64 + 32), or as C0 alone with
C1 = 0.
"""

import triton
import triton.language as tl

from .gelu import gelu, gelu_and_slope
from .tiles import SIZES, factor_of_rows, load_rows, store_rows


@triton.jit(do_not_specialize=SIZES)
def mlp_forward(
    y, x, w1, b1, w2, b2, out, narrow, drop, M, PIX,
    C: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr, BM: tl.constexpr,
    BH: tl.constexpr, GELU: tl.constexpr, DROP: tl.constexpr, COPY: tl.constexpr,
):  # fmt: skip
    """out = x + f (gelu(y w1^T + b1) w2^T + b2); also to ``narrow`` if COPY.

    f is 1, or with DROP the drop path factor of each row's image. A program has BM rows
    and loops over the hidden channels, BH at a time.

    y: (M, C), work. w1: (4C, C), work. w2: (C, 4C), work. b1: (4C,), b2: (C,), fp32.
    x, out: (M, C), stream; out may be x. narrow: (M, C), work. Grid: (M / BM,).
    """
    first, rows = tl.program_id(0) * BM, tl.arange(0, BM)
    left = M - first
    place = first.to(tl.int64) * C
    y += place
    x += place
    out += place
    narrow += place
    H: tl.constexpr = 4 * C
    c0 = tl.arange(0, C0)
    y0 = load_rows(y, rows, c0, C, left)
    acc0 = tl.zeros((BM, C0), tl.float32)
    if C1 > 0:
        c1 = C0 + tl.arange(0, C1)
        y1 = load_rows(y, rows, c1, C, left)
        acc1 = tl.zeros((BM, C1), tl.float32)
    for start in range(0, H, BH):
        hidden = start + tl.arange(0, BH)
        v0 = tl.load(w1 + hidden[None, :] * C + c0[:, None])
        t = tl.dot(y0, v0)
        if C1 > 0:
            v1 = tl.load(w1 + hidden[None, :] * C + c1[:, None])
            t = tl.dot(y1, v1, t)
        t += tl.load(b1 + hidden)[None, :]
        a = gelu(t, GELU).to(y.dtype.element_ty)
        u0 = tl.load(w2 + c0[None, :] * H + hidden[:, None])
        acc0 = tl.dot(a, u0, acc0)
        if C1 > 0:
            u1 = tl.load(w2 + c1[None, :] * H + hidden[:, None])
            acc1 = tl.dot(a, u1, acc1)
    acc0 += tl.load(b2 + c0)[None, :]
    if DROP:
        acc0 *= factor_of_rows(drop, first + rows, PIX, M)
    acc0 += load_rows(x, rows, c0, C, left).to(tl.float32)
    store_rows(out, rows, c0, C, left, acc0)
    if COPY:
        store_rows(narrow, rows, c0, C, left, acc0)
    if C1 > 0:
        acc1 += tl.load(b2 + c1)[None, :]
        if DROP:
            acc1 *= factor_of_rows(drop, first + rows, PIX, M)
        acc1 += load_rows(x, rows, c1, C, left).to(tl.float32)
        store_rows(out, rows, c1, C, left, acc1)
        if COPY:
            store_rows(narrow, rows, c1, C, left, acc1)


@triton.jit
def _scaled(g, share, DROP: tl.constexpr):
    """g times the drop path factors, in the type of g."""
    if DROP:
        g = (g.to(tl.float32) * share).to(g.dtype)
    return g


@triton.jit(do_not_specialize=SIZES)
def mlp_backward_rows(
    y, g, rstd, w1, b1, w2, du, parts_g, parts_u, drop, M, PIX,
    C: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr, BM: tl.constexpr,
    BH: tl.constexpr, GELU: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """The gradient of the norm's input, back through both products and the norm.

        dy = ((g f w2) * gelu'(y w1^T + b1)) w1
        du = (dy - mean(dy) - y mean(dy y)) rstd
        parts_g[p], parts_u[p] = the sums over the BM rows of program p of g f and of du

    g is the gradient of the block's output, y the norm's output, rstd its reciprocal
    standard deviations. f is 1, or with DROP the drop path factor of each row's image.

    y, g, du: (M, C), work. rstd: (M,), fp32. w1, b1, w2: as in ``mlp_forward``.
    parts_g, parts_u: (M / BM, C), fp32. Grid: (M / BM,).
    """
    pid = tl.program_id(0)
    first, rows = pid * BM, tl.arange(0, BM)
    left = M - first
    place = first.to(tl.int64) * C
    y += place
    g += place
    du += place
    rstd += first
    H: tl.constexpr = 4 * C
    half = y.dtype.element_ty
    share = tl.zeros((BM, 1), tl.float32)
    if DROP:
        share = factor_of_rows(drop, first + rows, PIX, M)
    c0 = tl.arange(0, C0)
    y0 = load_rows(y, rows, c0, C, left)
    g0 = _scaled(load_rows(g, rows, c0, C, left), share, DROP)
    tl.store(parts_g + pid * C + c0, tl.sum(g0.to(tl.float32), 0))
    acc0 = tl.zeros((BM, C0), tl.float32)
    if C1 > 0:
        c1 = C0 + tl.arange(0, C1)
        y1 = load_rows(y, rows, c1, C, left)
        g1 = _scaled(load_rows(g, rows, c1, C, left), share, DROP)
        tl.store(parts_g + pid * C + c1, tl.sum(g1.to(tl.float32), 0))
        acc1 = tl.zeros((BM, C1), tl.float32)
    for start in range(0, H, BH):
        hidden = start + tl.arange(0, BH)
        v0 = tl.load(w1 + hidden[:, None] * C + c0[None, :])  # (BH, C0)
        u0 = tl.load(w2 + c0[:, None] * H + hidden[None, :])  # (C0, BH)
        t = tl.dot(y0, tl.trans(v0))
        s = tl.dot(g0, u0)
        if C1 > 0:
            v1 = tl.load(w1 + hidden[:, None] * C + c1[None, :])
            u1 = tl.load(w2 + c1[:, None] * H + hidden[None, :])
            t = tl.dot(y1, tl.trans(v1), t)
            s = tl.dot(g1, u1, s)
        _, slope = gelu_and_slope(t + tl.load(b1 + hidden)[None, :], GELU)
        inner = (s * slope).to(half)
        acc0 = tl.dot(inner, v0, acc0)
        if C1 > 0:
            acc1 = tl.dot(inner, v1, acc1)
    again0 = load_rows(y, rows, c0, C, left).to(tl.float32)
    mean = tl.sum(acc0, 1)
    along = tl.sum(acc0 * again0, 1)
    if C1 > 0:
        again1 = load_rows(y, rows, c1, C, left).to(tl.float32)
        mean += tl.sum(acc1, 1)
        along += tl.sum(acc1 * again1, 1)
    r = tl.load(rstd + rows, mask=rows < left, other=0.0)
    mean, along = mean * (r / C), along * (r / C)
    acc0 = acc0 * r[:, None] - mean[:, None] - again0 * along[:, None]
    store_rows(du, rows, c0, C, left, acc0)
    tl.store(parts_u + pid * C + c0, tl.sum(acc0, 0))
    if C1 > 0:
        acc1 = acc1 * r[:, None] - mean[:, None] - again1 * along[:, None]
        store_rows(du, rows, c1, C, left, acc1)
        tl.store(parts_u + pid * C + c1, tl.sum(acc1, 0))


@triton.jit(do_not_specialize=SIZES)
def mlp_weights(
    y, g, w1, b1, w2, parts, parts_b1, drop, M, splits, PIX,
    C: tl.constexpr, C0: tl.constexpr, C1: tl.constexpr, BM: tl.constexpr,
    BH: tl.constexpr, GELU: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """Partial sums of the gradients of w1, b1 and w2.

        h = y w1^T + b1      a = gelu(h)      d = (g f w2) * gelu'(h)
        parts = sums over the rows of a split of d^T y and of (g f)^T a
        parts_b1 = sum over the rows of a split of d

    A program has BH hidden channels and one split of the rows. It computes the hidden
    rows and their gradient again, transposed.

    y, g, w1, b1, w2, f: as in ``mlp_backward_rows``. parts: (splits, 8 C C), fp32: the
    gradients of w1 (4C, C) and of w2 (C, 4C). parts_b1: (splits, 4C), fp32.
    Grid: (4C / BH, splits).
    """
    H: tl.constexpr = 4 * C
    half = y.dtype.element_ty
    hidden = tl.program_id(0) * BH + tl.arange(0, BH)
    split = tl.program_id(1)
    c0 = tl.arange(0, C0)
    v0 = tl.load(w1 + hidden[:, None] * C + c0[None, :])  # (BH, C0)
    u0 = tl.load(w2 + c0[None, :] * H + hidden[:, None])  # (BH, C0)
    of_w1_0 = tl.zeros((BH, C0), tl.float32)
    of_w2_0 = tl.zeros((BH, C0), tl.float32)
    if C1 > 0:
        c1 = C0 + tl.arange(0, C1)
        v1 = tl.load(w1 + hidden[:, None] * C + c1[None, :])
        u1 = tl.load(w2 + c1[None, :] * H + hidden[:, None])
        of_w1_1 = tl.zeros((BH, C1), tl.float32)
        of_w2_1 = tl.zeros((BH, C1), tl.float32)
    bias = tl.load(b1 + hidden)[:, None]
    sums = tl.zeros((BH,), tl.float32)
    share = tl.zeros((BM, 1), tl.float32)
    rows = tl.arange(0, BM)
    for first in range(split * BM, M, splits * BM):
        left = M - first
        place = tl.cast(first, tl.int64) * C
        if DROP:
            share = factor_of_rows(drop, first + rows, PIX, M)
        y0 = load_rows(y + place, rows, c0, C, left)
        g0 = _scaled(load_rows(g + place, rows, c0, C, left), share, DROP)
        t = tl.dot(v0, tl.trans(y0))  # (BH, BM)
        s = tl.dot(u0, tl.trans(g0))
        if C1 > 0:
            y1 = load_rows(y + place, rows, c1, C, left)
            g1 = _scaled(load_rows(g + place, rows, c1, C, left), share, DROP)
            t = tl.dot(v1, tl.trans(y1), t)
            s = tl.dot(u1, tl.trans(g1), s)
        a, slope = gelu_and_slope(t + bias, GELU)
        s *= slope
        sums += tl.sum(s, 1)
        a = a.to(half)
        d = s.to(half)
        of_w1_0 = tl.dot(d, y0, of_w1_0)
        of_w2_0 = tl.dot(a, g0, of_w2_0)
        if C1 > 0:
            of_w1_1 = tl.dot(d, y1, of_w1_1)
            of_w2_1 = tl.dot(a, g1, of_w2_1)
    parts += split.to(tl.int64) * (2 * H * C)
    tl.store(parts + hidden[:, None] * C + c0[None, :], of_w1_0)
    tl.store(parts + H * C + c0[None, :] * H + hidden[:, None], of_w2_0)
    if C1 > 0:
        tl.store(parts + hidden[:, None] * C + c1[None, :], of_w1_1)
        tl.store(parts + H * C + c1[None, :] * H + hidden[:, None], of_w2_1)
    tl.store(parts_b1 + split * H + hidden, sums)
