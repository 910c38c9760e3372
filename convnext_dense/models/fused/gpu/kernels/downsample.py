"""Kernels of the downsample layer between stages: LayerNorm, then a 2x2 convolution.

The convolution has stride 2. The normed pixels are written in the order of 2x2 patches,
(M / 4, 4C), so that it becomes a product with a matrix (CO, 4C), computed elsewhere.
The norm's weight n and bias m are folded into that matrix. For the convolution's weight
W_k (CO, C) at corner k = 0 .. 3 of a patch:

    W_k' = W_k diag(n)      shift = bias + sum_k W_k m

The last row or column of an odd size is in no patch and is left out. wo, wc, wh, ww are
the strides of the weight (CO, C, 2, 2).
"""

import triton
import triton.language as tl

from .tiles import SIZES, normalize, normalize_backward


@triton.jit
def _patch_place(rows, H, W, C: tl.constexpr):
    """Where each pixel lies among the patches, and whether it lies in one."""
    j = rows % W
    i = rows // W % H
    n = rows // (W * H)
    h, w = H // 2, W // 2
    to = (n * h + i // 2) * w + j // 2
    corner = (i % 2) * 2 + j % 2
    return to.to(tl.int64) * (4 * C) + corner * C, (i < 2 * h) & (j < 2 * w)


@triton.jit(do_not_specialize=SIZES)
def norm_patches(
    x, y, rstds, M, H, W, C: tl.constexpr, EPS: tl.constexpr, RB: tl.constexpr,
    CP: tl.constexpr,
):  # fmt: skip
    """y = (x - mean) rstds, rstds = 1 / sqrt(variance + EPS), in the order of patches.

    x: (M, C), M = N H W, stream. y: (N (H // 2) (W // 2), 4C), work. rstds: (M,), fp32.
    Grid: (M / RB,).
    """
    rows = tl.program_id(0) * RB + tl.arange(0, RB)
    channels = tl.arange(0, CP)
    inside = (rows < M)[:, None] & (channels < C)[None, :]
    place = rows[:, None].to(tl.int64) * C + channels[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    normed, rstd = normalize(value, inside, C, EPS)
    to, taken = _patch_place(rows, H, W, C)
    place = to[:, None] + channels[None, :]
    tl.store(y + place, normed.to(y.dtype.element_ty), mask=inside & taken[:, None])
    tl.store(rstds + rows, rstd, mask=rows < M)


@triton.jit(do_not_specialize=SIZES)
def norm_patches_backward(
    dy, y, rstds, dx, M, H, W, C: tl.constexpr, RB: tl.constexpr, CP: tl.constexpr
):
    """dx = (dy - mean(dy) - y mean(dy y)) rstds; 0 for pixels that are in no patch.

    dy, y: in the order of patches, as in ``norm_patches``, work. rstds: (M,), fp32.
    dx: (M, C), stream. Grid: (M / RB,).
    """
    rows = tl.program_id(0) * RB + tl.arange(0, RB)
    channels = tl.arange(0, CP)
    inside = (rows < M)[:, None] & (channels < C)[None, :]
    to, taken = _patch_place(rows, H, W, C)
    valid = inside & taken[:, None]
    place = to[:, None] + channels[None, :]
    grad = tl.load(dy + place, mask=valid, other=0.0).to(tl.float32)
    normed = tl.load(y + place, mask=valid, other=0.0).to(tl.float32)
    rstd = tl.load(rstds + rows, mask=rows < M, other=0.0)
    value = normalize_backward(grad, normed, rstd, C)
    out = dx + rows[:, None].to(tl.int64) * C + channels[None, :]
    tl.store(out, value.to(dx.dtype.element_ty), mask=inside)


@triton.jit
def fold_downsample(
    weight, norm_weight, norm_bias, bias, matrix, shift, wo, wc, wh, ww, CO,
    C: tl.constexpr, RB: tl.constexpr, CP: tl.constexpr,
):  # fmt: skip
    """matrix[:, k] = W_k' and shift, for RB output channels.

    weight: (CO, C, 2, 2), norm_weight, norm_bias: (C,), bias: (CO,), param. matrix:
    (CO, 4, C), work. shift: (CO,), fp32. Grid: (CO / RB,).
    """
    rows = tl.program_id(0) * RB + tl.arange(0, RB)
    c = tl.arange(0, CP)
    valid = (rows < CO)[:, None] & (c < C)[None, :]
    scales = tl.load(norm_weight + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    shifts = tl.load(norm_bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    total = tl.load(bias + rows, mask=rows < CO, other=0.0).to(tl.float32)
    for k in range(4):
        at = rows[:, None] * wo + c[None, :] * wc + (k // 2) * wh + (k % 2) * ww
        value = tl.load(weight + at, mask=valid, other=0.0).to(tl.float32)
        to = rows[:, None] * (4 * C) + k * C + c[None, :]
        scaled = (value * scales).to(matrix.dtype.element_ty)
        tl.store(matrix + to, scaled, mask=valid)
        total += tl.sum(value * shifts, 1)
    tl.store(shift + rows, total, mask=rows < CO)


@triton.jit
def finish_downsample(
    of_matrix, g_norm_weight, g_norm_bias, g_weight, g_bias, weight, norm_weight,
    norm_bias, CO, wo, wc, wh, ww, C: tl.constexpr, RB: tl.constexpr,
):  # fmt: skip
    """The gradients of the parameters from those of the folded ones.

        dW_k = dW_k' diag(n) + dbias m^T
        dn = sum over k and rows of W_k * dW_k'      dm = sum_k W_k^T dbias

    of_matrix: all dW_k', (CO, 4, C), fp32. g_bias: dbias, (CO,), fp32, already
    computed. g_weight: dW in the weight's layout, g_norm_weight, g_norm_bias: (C,),
    fp32. weight, norm_weight, norm_bias: as in ``fold_downsample``. A program has 16
    input channels. Grid: (C / 16,).
    """
    c = tl.program_id(0) * 16 + tl.arange(0, 16)
    inner = c < C
    scales = tl.load(norm_weight + c, mask=inner, other=0.0).to(tl.float32)[None, :]
    shifts = tl.load(norm_bias + c, mask=inner, other=0.0).to(tl.float32)[None, :]
    of_scale = tl.zeros((RB, 16), tl.float32)
    of_shift = tl.zeros((RB, 16), tl.float32)
    for first in range(0, CO, RB):
        rows = first + tl.arange(0, RB)
        valid = (rows < CO)[:, None] & inner[None, :]
        of_bias = tl.load(g_bias + rows, mask=rows < CO, other=0.0)[:, None]
        for k in range(4):
            at = rows[:, None] * wo + c[None, :] * wc + (k // 2) * wh + (k % 2) * ww
            value = tl.load(weight + at, mask=valid, other=0.0).to(tl.float32)
            place = rows[:, None] * (4 * C) + k * C + c[None, :]
            d = tl.load(of_matrix + place, mask=valid, other=0.0)
            of_scale += value * d
            of_shift += value * of_bias
            tl.store(g_weight + at, d * scales + of_bias * shifts, mask=valid)
    tl.store(g_norm_weight + c, tl.sum(of_scale, 0), mask=inner)
    tl.store(g_norm_bias + c, tl.sum(of_shift, 0), mask=inner)
