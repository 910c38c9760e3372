"""Between stages: LayerNorm, then a 2x2 convolution of stride 2.

The normed pixels are written in the order of 2x2 patches, (M / 4, 4C). So the
convolution is a product with a matrix (CO, 4C). The norm's weight and bias are folded
into that matrix. The last row or column of an odd size is in no patch and is left out.
"""

import triton
import triton.language as tl

from .tiles import SIZES, normalize, normalize_backward


@triton.jit
def _patch_place(rows, H, W, C: tl.constexpr):
    """Where pixel (n, i, j) lies in rows of patches, and whether it does."""
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
    """The rows of x without mean, with unit variance, in the order of patches."""
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
    """The gradient of ``norm_patches``'s x, from that of its y; 0 for what y lacks."""
    rows = tl.program_id(0) * RB + tl.arange(0, RB)
    channels = tl.arange(0, CP)
    inside = (rows < M)[:, None] & (channels < C)[None, :]
    to, taken = _patch_place(rows, H, W, C)
    there = inside & taken[:, None]
    place = to[:, None] + channels[None, :]
    grad = tl.load(dy + place, mask=there, other=0.0).to(tl.float32)
    normed = tl.load(y + place, mask=there, other=0.0).to(tl.float32)
    rstd = tl.load(rstds + rows, mask=rows < M, other=0.0)
    value = normalize_backward(grad, normed, rstd, C)
    out = dx + rows[:, None].to(tl.int64) * C + channels[None, :]
    tl.store(out, value.to(dx.dtype.element_ty), mask=inside)


@triton.jit
def fold_downsample(
    weight, norm_weight, norm_bias, bias, matrix, shift, wo, wc, wh, ww, CO,
    C: tl.constexpr, RB: tl.constexpr, CP: tl.constexpr,
):  # fmt: skip
    """``matrix`` (CO, 2, 2, C) and ``shift`` (CO): the norm's weight and bias folded
    into the convolution's, of RB output channels. ``w*``: the weight's strides."""
    rows = tl.program_id(0) * RB + tl.arange(0, RB)
    c = tl.arange(0, CP)
    there = (rows < CO)[:, None] & (c < C)[None, :]
    scales = tl.load(norm_weight + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    shifts = tl.load(norm_bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    total = tl.load(bias + rows, mask=rows < CO, other=0.0).to(tl.float32)
    for k in range(4):
        at = rows[:, None] * wo + c[None, :] * wc + (k // 2) * wh + (k % 2) * ww
        value = tl.load(weight + at, mask=there, other=0.0).to(tl.float32)
        to = rows[:, None] * (4 * C) + k * C + c[None, :]
        scaled = (value * scales).to(matrix.dtype.element_ty)
        tl.store(matrix + to, scaled, mask=there)
        total += tl.sum(value * shifts, 1)
    tl.store(shift + rows, total, mask=rows < CO)


@triton.jit
def finish_downsample(
    of_matrix, g_norm_weight, g_norm_bias, g_weight, g_bias, weight, norm_weight,
    norm_bias, CO, wo, wc, wh, ww, C: tl.constexpr, RB: tl.constexpr,
):  # fmt: skip
    """The parameters' gradients from the folded ones', of 16 input channels.

    ``of_matrix`` (CO, 2, 2, C) is the matrix's; ``g_bias`` has the bias's already. The
    weight's goes to ``g_weight`` in the weight's own layout.
    """
    c = tl.program_id(0) * 16 + tl.arange(0, 16)
    inner = c < C
    scales = tl.load(norm_weight + c, mask=inner, other=0.0).to(tl.float32)[None, :]
    shifts = tl.load(norm_bias + c, mask=inner, other=0.0).to(tl.float32)[None, :]
    of_scale = tl.zeros((RB, 16), tl.float32)
    of_shift = tl.zeros((RB, 16), tl.float32)
    for first in range(0, CO, RB):
        rows = first + tl.arange(0, RB)
        there = (rows < CO)[:, None] & inner[None, :]
        of_bias = tl.load(g_bias + rows, mask=rows < CO, other=0.0)[:, None]
        for k in range(4):
            at = rows[:, None] * wo + c[None, :] * wc + (k // 2) * wh + (k % 2) * ww
            value = tl.load(weight + at, mask=there, other=0.0).to(tl.float32)
            place = rows[:, None] * (4 * C) + k * C + c[None, :]
            d = tl.load(of_matrix + place, mask=there, other=0.0)
            of_scale += value * d
            of_shift += value * of_bias
            tl.store(g_weight + at, d * scales + of_bias * shifts, mask=there)
    tl.store(g_norm_weight + c, tl.sum(of_scale, 0), mask=inner)
    tl.store(g_norm_bias + c, tl.sum(of_shift, 0), mask=inner)
