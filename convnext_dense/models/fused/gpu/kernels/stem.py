"""Kernels of the stem: a 4x4 convolution of stride 4, then LayerNorm.

A patch p of the image is a row of 16 CI numbers; CI, the image's channels, is at most
4. With W the weight (C, CI, 4, 4) as a matrix (C, 16 CI):

    u = p W^T + bias
    out = (u - mean) / sqrt(variance + EPS) norm_weight + norm_bias

The output has M = N h w pixels. The backward pass computes u again. sn, sc, sh, sw are
the image's strides, wo, wc, wh, ww those of the weight.
"""

import triton
import triton.language as tl

from .tiles import SIZES, normalize, normalize_backward

_SIZES = [*SIZES, "h", "w", "sn", "sc", "sh", "sw"]


@triton.jit
def _patches(image, rows, M, h, w, sn, sc, sh, sw, CI: tl.constexpr):
    """The patches of output pixels ``rows``, (rows, 64); 0 from column 16 CI on."""
    k = tl.arange(0, 64)
    j = rows % w
    i = rows // w % h
    n = rows // (w * h)
    at = n.to(tl.int64) * sn + i.to(tl.int64) * 4 * sh + j * 4 * sw
    inner = (k // 16).to(tl.int64) * sc + (k // 4 % 4) * sh + (k % 4) * sw
    inside = (rows < M)[:, None] & (k < 16 * CI)[None, :]
    return tl.load(image + at[:, None] + inner[None, :], mask=inside, other=0.0)


@triton.jit
def _matrix(
    weight, wo, wc, wh, ww, CI: tl.constexpr, C: tl.constexpr, CP: tl.constexpr
):
    """The weight as a matrix, transposed and padded: (64, CP)."""
    k = tl.arange(0, 64)
    c = tl.arange(0, CP)
    inner = (k // 16) * wc + (k // 4 % 4) * wh + (k % 4) * ww
    inside = (k < 16 * CI)[:, None] & (c < C)[None, :]
    return tl.load(weight + inner[:, None] + c[None, :] * wo, mask=inside, other=0.0)


@triton.jit
def _vector(source, C: tl.constexpr, CP: tl.constexpr):
    """C numbers as a row (1, CP), in fp32."""
    c = tl.arange(0, CP)
    return tl.load(source + c, mask=c < C, other=0.0).to(tl.float32)[None, :]


@triton.jit(do_not_specialize=_SIZES)
def stem_forward(
    image, weight, bias, norm_weight, norm_bias, out, narrow, M, h, w, sn, sc, sh, sw,
    wo, wc, wh, ww, CI: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
    BM: tl.constexpr, EPS: tl.constexpr, COPY: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The stem's output; also in the type of ``narrow`` if COPY.

    image: (N, CI, 4h, 4w) or larger, any layout and float type. weight: (C, CI, 4, 4),
    any layout, param. bias, norm_weight, norm_bias: (C,), param. out: (M, C), stream.
    narrow: (M, C), work; its type is that of the product's operands, also without COPY.
    Grid: (M / BM,).
    """
    TYPE: tl.constexpr = narrow.dtype.element_ty
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    c = tl.arange(0, CP)
    inside = (rows < M)[:, None] & (c < C)[None, :]
    patches = _patches(image, rows, M, h, w, sn, sc, sh, sw, CI).to(TYPE)
    matrix = _matrix(weight, wo, wc, wh, ww, CI, C, CP).to(TYPE)
    u = tl.dot(patches, matrix, input_precision=PRECISION) + _vector(bias, C, CP)
    normed, _ = normalize(u, (c < C)[None, :], C, EPS)
    value = normed * _vector(norm_weight, C, CP) + _vector(norm_bias, C, CP)
    place = rows.to(tl.int64)[:, None] * C + c[None, :]
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)
    if COPY:
        tl.store(narrow + place, value.to(narrow.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def stem_backward(
    image, weight, bias, norm_weight, g, narrow, parts_weight, parts_bias,
    parts_norm_weight, parts_norm_bias, M, splits, h, w, sn, sc, sh, sw, wo, wc, wh, ww,
    CI: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, BM: tl.constexpr,
    EPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Partial sums of the gradients of the stem's four parameters.

    With g the gradient of out, y = (u - mean) rstd and d = g norm_weight, split s has

        du = (d - mean(d) - y mean(d y)) rstd
        parts_weight = sum du^T p         parts_bias = sum du
        parts_norm_weight = sum g y       parts_norm_bias = sum g

    g: (M, C), stream. narrow: (M, C), work; only its type is used, for the products'
    operands. parts_weight: (splits, C, 16 CI), fp32. The others: (splits, C), fp32.
    Grid: (splits,). The rest is as in ``stem_forward``.
    """
    TYPE: tl.constexpr = narrow.dtype.element_ty
    split = tl.program_id(0)
    c = tl.arange(0, CP)
    valid = c < C
    matrix = _matrix(weight, wo, wc, wh, ww, CI, C, CP).to(TYPE)
    shift = _vector(bias, C, CP)
    scale = _vector(norm_weight, C, CP)
    of_matrix = tl.zeros((CP, 64), tl.float32)
    of_bias = tl.zeros((CP,), tl.float32)
    of_norm_weight = tl.zeros((CP,), tl.float32)
    of_norm_bias = tl.zeros((CP,), tl.float32)
    for first in range(split * BM, M, splits * BM):
        rows = first + tl.arange(0, BM)
        inside = (rows < M)[:, None] & valid[None, :]
        patches = _patches(image, rows, M, h, w, sn, sc, sh, sw, CI).to(TYPE)
        u = tl.dot(patches, matrix, input_precision=PRECISION) + shift
        normed, rstd = normalize(u, valid[None, :], C, EPS)
        place = rows.to(tl.int64)[:, None] * C + c[None, :]
        grad = tl.load(g + place, mask=inside, other=0.0).to(tl.float32)
        of_norm_weight += tl.sum(grad * normed, 0)
        of_norm_bias += tl.sum(grad, 0)
        du = normalize_backward(grad * scale, normed, rstd, C)
        du = tl.where(inside, du, 0.0)
        of_bias += tl.sum(du, 0)
        of_matrix = tl.dot(
            tl.trans(du.to(TYPE)), patches, of_matrix, input_precision=PRECISION
        )
    k = tl.arange(0, 64)
    place = c[:, None] * (16 * CI) + k[None, :]
    inside = valid[:, None] & (k < 16 * CI)[None, :]
    tl.store(parts_weight + split * (16 * CI * C) + place, of_matrix, mask=inside)
    tl.store(parts_bias + split * C + c, of_bias, mask=valid)
    tl.store(parts_norm_weight + split * C + c, of_norm_weight, mask=valid)
    tl.store(parts_norm_bias + split * C + c, of_norm_bias, mask=valid)
