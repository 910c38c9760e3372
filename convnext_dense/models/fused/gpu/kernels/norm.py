"""LayerNorm kernels: inside a block, and of a stage's output map."""

import triton
import triton.language as tl

from .tiles import SIZES, factor_of_rows, normalize, normalize_backward


@triton.jit(do_not_specialize=SIZES)
def norm_rows(
    u, y, rstds, M, C: tl.constexpr, EPS: tl.constexpr, RB: tl.constexpr,
    CP: tl.constexpr,
):  # fmt: skip
    """y = (u - mean) rstds, rstds = 1 / sqrt(variance + EPS), for each row.

    u, y: (M, C), work; y may be u. rstds: (M,), fp32. Grid: (M / RB,).
    The norm's weight and bias are folded into the next product.
    """
    rows = tl.program_id(0) * RB + tl.arange(0, RB)
    channels = tl.arange(0, CP)
    inside = (rows < M)[:, None] & (channels < C)[None, :]
    place = rows[:, None].to(tl.int64) * C + channels[None, :]
    value = tl.load(u + place, mask=inside, other=0.0).to(tl.float32)
    normed, rstd = normalize(value, inside, C, EPS)
    tl.store(y + place, normed.to(y.dtype.element_ty), mask=inside)
    tl.store(rstds + rows, rstd, mask=rows < M)


@triton.jit(do_not_specialize=SIZES)
def norm_rows_backward(
    dy, y, g, rstd, parts_u, parts_g, drop, M, splits, PIX,
    C: tl.constexpr, CP: tl.constexpr, RB: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """The backward pass of ``norm_rows``, in place: dy becomes the gradient du of u.

        du = (dy - mean(dy) - y mean(dy y)) rstd
        parts_u[s] = sum over the rows r of split s of du[r]
        parts_g[s] = sum over the rows r of split s of g[r] drop[r // PIX]

    Without DROP the factor drop is 1.

    The sums are the gradients of the depthwise convolution's bias and of the second
    linear layer's bias. g is the gradient of the block's output.

    dy, y, g: (M, C), work. rstd: (M,), fp32. parts_u, parts_g: (splits, C), fp32.
    Grid: (splits,).
    """
    split = tl.program_id(0)
    columns = tl.arange(0, CP)
    valid = columns < C
    total = tl.zeros((RB, CP), tl.float32)
    total_g = tl.zeros((RB, CP), tl.float32)
    for first in range(split * RB, M, splits * RB):
        rows = first + tl.arange(0, RB)
        inside = (rows < M)[:, None] & valid[None, :]
        place = rows.to(tl.int64)[:, None] * C + columns[None, :]
        grad = tl.load(dy + place, mask=inside, other=0.0).to(tl.float32)
        normed = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
        outer = tl.load(g + place, mask=inside, other=0.0).to(tl.float32)
        if DROP:
            outer *= factor_of_rows(drop, rows, PIX, M)
        total_g += outer
        r = tl.load(rstd + rows, mask=rows < M, other=0.0)
        value = tl.where(inside, normalize_backward(grad, normed, r, C), 0.0)
        tl.store(dy + place, value.to(dy.dtype.element_ty), mask=inside)
        total += value
    tl.store(parts_u + split * C + columns, tl.sum(total, 0), mask=valid)
    tl.store(parts_g + split * C + columns, tl.sum(total_g, 0), mask=valid)


@triton.jit(do_not_specialize=SIZES)
def output_norm(
    x, weight, bias, out, M, C: tl.constexpr, EPS: tl.constexpr, RB: tl.constexpr,
    CP: tl.constexpr,
):  # fmt: skip
    """out = (x - mean) / sqrt(variance + EPS) weight + bias, for each row.

    x: (M, C), stream. weight, bias: (C,), param. out: (M, C), any float type.
    Grid: (M / RB,).
    """
    rows = tl.program_id(0) * RB + tl.arange(0, RB)
    c = tl.arange(0, CP)
    valid = c < C
    inside = (rows < M)[:, None] & valid[None, :]
    place = rows[:, None].to(tl.int64) * C + c[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    normed, _ = normalize(value, inside, C, EPS)
    scale = tl.load(weight + c, mask=valid, other=0.0).to(tl.float32)[None, :]
    shift = tl.load(bias + c, mask=valid, other=0.0).to(tl.float32)[None, :]
    value = normed * scale + shift
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=[*SIZES, "sn", "sc", "sh", "sw"])
def output_norm_backward(
    x, weight, grad, g, wide, narrow, parts_weight, parts_bias, M, splits, H, W,
    sn, sc, sh, sw, C: tl.constexpr, EPS: tl.constexpr, RB: tl.constexpr,
    CP: tl.constexpr, ADD: tl.constexpr, COPY: tl.constexpr, STRIDED: tl.constexpr,
):  # fmt: skip
    """The backward pass of ``output_norm``; y = (x - mean) rstd, d = grad weight.

        wide = (d - mean(d) - y mean(d y)) rstd, + g if ADD
        narrow = wide in its own type, if COPY
        parts_weight[s] = sum over the rows of split s of grad y
        parts_bias[s] = sum over the rows of split s of grad

    x, g, wide: (M, C), stream; wide may be g. narrow: (M, C), work. weight: (C,),
    param. parts_weight, parts_bias: (splits, C), fp32. Grid: (splits,).
    grad: the gradient of ``out``, (N, C, H, W). It is in channels_last, or if STRIDED
    has the strides sn, sc, sh, sw: a loss may choose any layout.
    """
    split = tl.program_id(0)
    c = tl.arange(0, CP)
    valid = c < C
    scale = tl.load(weight + c, mask=valid, other=0.0).to(tl.float32)[None, :]
    of_weight = tl.zeros((RB, CP), tl.float32)
    of_bias = tl.zeros((RB, CP), tl.float32)
    for first in range(split * RB, M, splits * RB):
        rows = first + tl.arange(0, RB)
        inside = (rows < M)[:, None] & valid[None, :]
        place = rows[:, None].to(tl.int64) * C + c[None, :]
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        normed, rstd = normalize(value, inside, C, EPS)
        if STRIDED:
            of_row = (rows // (H * W)).to(tl.int64) * sn
            of_row += (rows // W % H).to(tl.int64) * sh + (rows % W) * sw
            at = of_row[:, None] + c.to(tl.int64)[None, :] * sc
        else:
            at = place
        d = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        of_weight += d * normed
        of_bias += d
        d = normalize_backward(d * scale, normed, rstd, C)
        if ADD:
            d += tl.load(g + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(wide + place, d.to(wide.dtype.element_ty), mask=inside)
        if COPY:
            tl.store(narrow + place, d.to(narrow.dtype.element_ty), mask=inside)
    tl.store(parts_weight + split * C + c, tl.sum(of_weight, 0), mask=valid)
    tl.store(parts_bias + split * C + c, tl.sum(of_bias, 0), mask=valid)
