"""Depthwise 7x7 in Triton: the convolution, with the norm after it, and its gradients.

Feature maps are (N, H, W, C) and contiguous: what a map in the channels_last memory
format is underneath. Sums are in fp32. Importing this needs Triton, which comes with
PyTorch for CUDA.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 4  # output rows of a program: each loaded value then serves up to four
_SPLITS = 256  # partial sums of the weight's gradient


@triton.jit
def _load(x, n, row, first, column, C, H, W, channels, WIDE: tl.constexpr):
    """WIDE columns of a row from ``first`` on, zero outside: (WIDE, channels)."""
    columns = first + column
    end = tl.where((row >= 0) & (row < H), W, 0)
    inside = (columns >= 0) & (columns < end)
    place = ((n * H + row).to(tl.int64) * W + columns) * C
    return tl.load(
        x + place[:, None] + channels[None, :],
        mask=inside[:, None] & (channels < C)[None, :],
        other=0.0,
    ).to(tl.float32)


@triton.jit
def _convolution(
    x, weight, bias, y, C, H, W,
    FLIP: tl.constexpr, WIDE: tl.constexpr, CB: tl.constexpr,
):  # fmt: skip
    """Four rows by WIDE columns by CB channels of the convolution.

    ``weight`` is (49, C); with FLIP it is turned by half a turn, which makes this
    the gradient of the input.
    """
    bands = tl.cdiv(H, 4)
    n, top = tl.program_id(0) // bands, tl.program_id(0) % bands * 4
    first = tl.program_id(1) * WIDE
    channels = tl.program_id(2) * CB + tl.arange(0, CB)
    there = channels < C
    column = tl.arange(0, WIDE)
    start = tl.load(bias + channels, mask=there, other=0.0).to(tl.float32)
    a = tl.zeros((WIDE, CB), tl.float32) + start[None, :]
    b, c, d = a, a, a
    for r in range(10):  # not unrolled: that takes more registers than there are
        for k in tl.static_range(7):
            value = _load(
                x, n, top + r - 3, first + k - 3, column, C, H, W, channels, WIDE
            )
            for i in tl.static_range(4):
                own = r - i  # the row of the kernel through which row i sees this one
                end = tl.where((own >= 0) & (own < 7), C, 0)
                tap = own * 7 + k
                if FLIP:
                    tap = 48 - tap
                w = tl.load(weight + tap * C + channels, mask=channels < end, other=0.0)
                part = value * w.to(tl.float32)[None, :]
                if i == 0:
                    a += part
                elif i == 1:
                    b += part
                elif i == 2:
                    c += part
                else:
                    d += part
    columns = first + column
    for i in tl.static_range(4):
        if i == 0:
            out = a
        elif i == 1:
            out = b
        elif i == 2:
            out = c
        else:
            out = d
        end = tl.where(top + i < H, W, 0)
        place = ((n * H + top + i).to(tl.int64) * W + columns) * C
        tl.store(
            y + place[:, None] + channels[None, :],
            out.to(y.dtype.element_ty),
            mask=(columns < end)[:, None] & there[None, :],
        )


@triton.jit
def _convolution_norm(
    x, weight, bias, scale, shift, u, y, means, rstds, C, H, W, eps,
    WIDE: tl.constexpr, CB: tl.constexpr,
):  # fmt: skip
    """WIDE columns of a row: the convolution, to ``u``, and its norm, to ``y``.

    Channels come in blocks of CB; mean and variance are merged block by block
    (Chan, Golub and LeVeque, 1983), which loses nothing to cancellation.
    """
    n, row = tl.program_id(0) // H, tl.program_id(0) % H
    first = tl.program_id(1) * WIDE
    column = tl.arange(0, WIDE)
    columns = first + column
    pixels = (n * H + row).to(tl.int64) * W + columns
    mean = tl.zeros((WIDE,), tl.float32)
    spread = tl.zeros((WIDE,), tl.float32)
    for block in range(0, tl.cdiv(C, CB)):
        channels = block * CB + tl.arange(0, CB)
        there = channels < C
        start = tl.load(bias + channels, mask=there, other=0.0).to(tl.float32)
        total = tl.zeros((WIDE, CB), tl.float32) + start[None, :]
        for r in range(7):
            for k in tl.static_range(7):
                value = _load(
                    x, n, row + r - 3, first + k - 3, column, C, H, W, channels, WIDE
                )
                w = tl.load(weight + (r * 7 + k) * C + channels, mask=there, other=0.0)
                total += value * w.to(tl.float32)[None, :]
        inside = (columns < W)[:, None] & there[None, :]
        tl.store(
            u + pixels[:, None] * C + channels[None, :],
            total.to(u.dtype.element_ty),
            mask=inside,
        )
        before = block * CB
        count = tl.minimum(C - before, CB)
        own_mean = tl.sum(total, 1) / count
        away = tl.where(there[None, :], total - own_mean[:, None], 0.0)
        apart = own_mean - mean
        spread += tl.sum(away * away, 1) + apart * apart * before * count / (
            before + count
        )
        mean += apart * count / (before + count)
    rstd = 1 / tl.sqrt(spread / C + eps)
    tl.store(means + pixels, mean, mask=columns < W)
    tl.store(rstds + pixels, rstd, mask=columns < W)
    tl.debug_barrier()  # u is read back, by whichever thread
    for block in range(0, tl.cdiv(C, CB)):
        channels = block * CB + tl.arange(0, CB)
        there = channels < C
        inside = (columns < W)[:, None] & there[None, :]
        place = pixels[:, None] * C + channels[None, :]
        value = tl.load(u + place, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(scale + channels, mask=there, other=0.0).to(tl.float32)
        s = tl.load(shift + channels, mask=there, other=0.0).to(tl.float32)
        value = (value - mean[:, None]) * rstd[:, None] * g[None, :] + s[None, :]
        tl.store(y + place, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _weight_gradient(
    x, grad, partial, C, N, H, W, splits, WIDE: tl.constexpr, CB: tl.constexpr
):
    """One row of the kernel, 7 taps, for CB channels, over a share of the rows."""
    r = tl.program_id(0)  # the fastest: its seven programs share what is in cache
    channels = tl.program_id(1) * CB + tl.arange(0, CB)
    split = tl.program_id(2)
    column = tl.arange(0, WIDE)
    a = tl.zeros((WIDE, CB), tl.float32)
    b, c, d, e, f, g = a, a, a, a, a, a
    for line in range(split, N * H, splits):
        n, row = line // H, line % H
        for first in range(0, W, WIDE):
            of = _load(grad, n, row, first, column, C, H, W, channels, WIDE)
            above = row + r - 3
            a += of * _load(x, n, above, first - 3, column, C, H, W, channels, WIDE)
            b += of * _load(x, n, above, first - 2, column, C, H, W, channels, WIDE)
            c += of * _load(x, n, above, first - 1, column, C, H, W, channels, WIDE)
            d += of * _load(x, n, above, first, column, C, H, W, channels, WIDE)
            e += of * _load(x, n, above, first + 1, column, C, H, W, channels, WIDE)
            f += of * _load(x, n, above, first + 2, column, C, H, W, channels, WIDE)
            g += of * _load(x, n, above, first + 3, column, C, H, W, channels, WIDE)
    place = partial + (split * 49 + r * 7) * C + channels
    there = channels < C
    tl.store(place, tl.sum(a, 0), mask=there)
    tl.store(place + C, tl.sum(b, 0), mask=there)
    tl.store(place + 2 * C, tl.sum(c, 0), mask=there)
    tl.store(place + 3 * C, tl.sum(d, 0), mask=there)
    tl.store(place + 4 * C, tl.sum(e, 0), mask=there)
    tl.store(place + 5 * C, tl.sum(f, 0), mask=there)
    tl.store(place + 6 * C, tl.sum(g, 0), mask=there)


def _tile(width: int, channels: int) -> tuple[int, int]:
    """Columns and channels of a program: powers of two, together 512."""
    channel_block = 32 if channels % 64 else 64
    wide = min(512 // channel_block, triton.next_power_of_2(width))
    return wide, channel_block


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, flip: bool = False
) -> Tensor:
    """The convolution of (N, C, H, W) in channels_last with (C, 1, 7, 7)."""
    n, c, h, w = x.shape
    y = torch.empty_like(x, memory_format=torch.channels_last)
    if bias is None:
        bias = x.new_zeros(c)
    wide, block = _tile(w, c)
    grid = n * triton.cdiv(h, _ROWS), triton.cdiv(w, wide), triton.cdiv(c, block)
    _convolution[grid](x, _taps(weight), bias, y, c, h, w, flip, wide, block)
    return y


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the input, from that of the output."""
    return convolution(grad, weight, None, flip=True)


def convolution_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The convolution and LayerNorm over the channels of each pixel, in one pass.

    Returns:
        the normed rows (M, C) in the type of ``x``; the convolution's, likewise;
        mean and reciprocal standard deviation of each, (M, 1) in fp32.
    """
    n, c, h, w = x.shape
    u, y = (x.new_empty(n * h * w, c) for _ in range(2))
    means, rstds = (x.new_empty(n * h * w, 1, dtype=torch.float32) for _ in range(2))
    wide, block = _tile(w, c)
    grid = n * h, triton.cdiv(w, wide)
    _convolution_norm[grid](
        x, _taps(weight), bias, scale, shift, u, y, means, rstds, c, h, w, eps, wide,
        block,
    )  # fmt: skip
    return y, u, means, rstds


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Gradient of the weight, (C, 1, 7, 7) in fp32, from input and output's."""
    n, c, h, w = x.shape
    splits = max(min(_SPLITS, n * h), 1)
    partial = x.new_empty(splits, 49, c, dtype=torch.float32)
    wide, block = _tile(w, c)
    grid = 7, triton.cdiv(c, block), splits
    _weight_gradient[grid](x, grad, partial, c, n, h, w, splits, wide, block)
    return partial.sum(0).t().reshape(c, 1, 7, 7)


def _taps(weight: Tensor) -> Tensor:
    """(C, 1, 7, 7) -> (49, C)."""
    return weight.flatten(1).t().contiguous()
