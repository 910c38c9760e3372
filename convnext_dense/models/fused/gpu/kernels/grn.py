"""Kernels of global response normalization (GRN; arXiv 2301.00808, algorithm 1).

For each image and hidden channel j, with a = GELU's output and sums over the pixels:

    strength_j = sqrt(sum a_j^2)
    response_j = strength_j / (mean_j strength + EPS)
    scale_j = 1 + gamma_j response_j
    output_j = a_j scale_j + beta_j

beta is folded into the second product's bias. H is the number of hidden channels, 4C.
A program has one image.
"""

import triton
import triton.language as tl

_SIZES = ["splits"]  # like tiles.SIZES, but H is a constant here

EPS = 1e-6  # block.GRN adds it to the mean


@triton.jit
def _sum_of_parts(parts, channels, splits, H: tl.constexpr, CB: tl.constexpr):
    """The sum over ``splits`` of parts (splits, H), for CB channels."""
    index = tl.arange(0, 16)
    total = tl.zeros((16, CB), tl.float32)
    for first in range(0, splits, 16):
        inside = (first + index < splits)[:, None] & (channels < H)[None, :]
        place = (first + index)[:, None] * H + channels[None, :]
        total += tl.load(parts + place, mask=inside, other=0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=_SIZES)
def grn_scale(
    squares, gamma, scale, splits, H: tl.constexpr, CB: tl.constexpr, EPS: tl.constexpr
):
    """scale = 1 + gamma response, of each image and channel.

    squares: partial sums of a^2, (images, splits, H), fp32. gamma: (H,), param.
    scale: (images, H), fp32. Grid: (images,).
    """
    image = tl.program_id(0)
    squares += image * splits * H
    scale += image * H
    total = 0.0
    for first in range(0, H, CB):
        channels = first + tl.arange(0, CB)
        total += tl.sum(tl.sqrt(_sum_of_parts(squares, channels, splits, H, CB)))
    mean = total / H + EPS
    for first in range(0, H, CB):
        channels = first + tl.arange(0, CB)
        strength = tl.sqrt(_sum_of_parts(squares, channels, splits, H, CB))
        by = tl.load(gamma + channels, mask=channels < H, other=0.0).to(tl.float32)
        tl.store(scale + channels, 1 + by * strength / mean, mask=channels < H)


@triton.jit(do_not_specialize=_SIZES)
def grn_slopes(
    squares, along, gamma, scale, slope, parts_gamma, splits, H: tl.constexpr,
    CB: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """The factors of GRN's backward pass, of each image and channel.

    With s the gradient of GRN's output, the gradient of its input a is
    s scale + a slope. The mean contains all channels, so the strength of each channel
    lowers the response of the others:

        along_j = sum over pixels of a_j s_j
        lowered = mean_j (along gamma response)
        slope_j = (along_j gamma_j - lowered) / ((mean_j strength + EPS) strength_j)
        parts_gamma_j = along_j response_j    (one image's share of gamma's gradient)

    squares, along: partial sums of a^2 and of a s from ``hidden.grn_sums``,
    (images, splits, H), fp32. gamma: (H,), param. scale, slope, parts_gamma:
    (images, H), fp32. Grid: (images,).
    """
    image = tl.program_id(0)
    squares += image * splits * H
    along += image * splits * H
    to = image * H
    total = 0.0
    for first in range(0, H, CB):
        channels = first + tl.arange(0, CB)
        total += tl.sum(tl.sqrt(_sum_of_parts(squares, channels, splits, H, CB)))
    mean = total / H + EPS
    lowered = 0.0
    for first in range(0, H, CB):
        channels = first + tl.arange(0, CB)
        valid = channels < H
        response = tl.sqrt(_sum_of_parts(squares, channels, splits, H, CB)) / mean
        of_scale = _sum_of_parts(along, channels, splits, H, CB)
        by = tl.load(gamma + channels, mask=valid, other=0.0).to(tl.float32)
        lowered += tl.sum(of_scale * by * response)
        tl.store(scale + to + channels, 1 + by * response, mask=valid)
        tl.store(parts_gamma + to + channels, of_scale * response, mask=valid)
    lowered /= H
    for first in range(0, H, CB):
        channels = first + tl.arange(0, CB)
        valid = channels < H
        strength = tl.sqrt(_sum_of_parts(squares, channels, splits, H, CB))
        of_scale = _sum_of_parts(along, channels, splits, H, CB)
        by = tl.load(gamma + channels, mask=valid, other=0.0).to(tl.float32)
        value = (of_scale * by - lowered) / mean
        # The gradient of an L2 norm at 0 is taken as 0.
        value = tl.where(strength > 0, value / tl.maximum(strength, 1e-30), 0.0)
        tl.store(slope + to + channels, value, mask=valid)
