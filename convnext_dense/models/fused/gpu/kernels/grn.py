"""Global response normalization (arXiv 2301.00808, algorithm 1) of each image.

A channel's strength is its L2 norm over the image, its response the strength over the
mean of all channels' strengths, and GRN multiplies it by scale = 1 + gamma response.
(GRN's beta is folded into the second product's bias.) One program has an image.
"""

import triton
import triton.language as tl

_SIZES = ["splits"]  # as tiles.SIZES; H is constant here

EPS = 1e-6  # block.GRN adds it to the mean


@triton.jit
def _sum_of_parts(parts, channels, splits, H: tl.constexpr, CB: tl.constexpr):
    """The sum of (splits, H) partial sums, of CB channels."""
    part = tl.arange(0, 16)
    total = tl.zeros((16, CB), tl.float32)
    for first in range(0, splits, 16):
        inside = (first + part < splits)[:, None] & (channels < H)[None, :]
        place = (first + part)[:, None] * H + channels[None, :]
        total += tl.load(parts + place, mask=inside, other=0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=_SIZES)
def grn_scale(
    squares, gamma, scale, splits, H: tl.constexpr, CB: tl.constexpr, EPS: tl.constexpr
):
    """``scale`` (images, H), from partial sums of squares (images, splits, H)."""
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
    """What GRN's backward pass needs, (images, H) each, from ``hidden.grn_sums``.

    The gradient of GRN's input a is s ``scale`` + a ``slope``: the mean is of all
    channels, so each one's strength lowers the others' response. ``parts_gamma``: each
    image's part of gamma's gradient.
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
        there = channels < H
        response = tl.sqrt(_sum_of_parts(squares, channels, splits, H, CB)) / mean
        of_scale = _sum_of_parts(along, channels, splits, H, CB)
        by = tl.load(gamma + channels, mask=there, other=0.0).to(tl.float32)
        lowered += tl.sum(of_scale * by * response)
        tl.store(scale + to + channels, 1 + by * response, mask=there)
        tl.store(parts_gamma + to + channels, of_scale * response, mask=there)
    lowered /= H
    for first in range(0, H, CB):
        channels = first + tl.arange(0, CB)
        there = channels < H
        strength = tl.sqrt(_sum_of_parts(squares, channels, splits, H, CB))
        of_scale = _sum_of_parts(along, channels, splits, H, CB)
        by = tl.load(gamma + channels, mask=there, other=0.0).to(tl.float32)
        value = (of_scale * by - lowered) / mean
        # a norm has no slope at 0
        value = tl.where(strength > 0, value / tl.maximum(strength, 1e-30), 0.0)
        tl.store(slope + to + channels, value, mask=there)
