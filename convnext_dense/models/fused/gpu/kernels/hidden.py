"""Kernels between a block's two products, if cuBLAS computes the products.

They compute GELU, and GRN, which needs sums over the pixels of each image. H is the
number of hidden channels, 4C. The rows of a piece form groups of PIX rows: with GRN a
group is an image, without it the whole piece. A program of ``activate``, ``grn_sums``
and ``hidden_backward`` has CB channels and one split of the rows of a group. Their grid
is (H / CB, splits, groups). b1 is (H,), fp32.
"""

import triton
import triton.language as tl

from .gelu import gelu, gelu_and_slope

_SIZES = ["M", "PIX", "START", "IMAGE", "splits"]  # like tiles.SIZES, but H is constant


@triton.jit(do_not_specialize=_SIZES)
def activate(
    h, b1, squares, PIX, splits, H: tl.constexpr, RB: tl.constexpr, CB: tl.constexpr,
    GELU: tl.constexpr, GRN: tl.constexpr,
):  # fmt: skip
    """a = gelu(h + b1), in place of h.

    With GRN also squares[group, s] = sum over the rows of split s of a^2.

    h: (groups PIX, H), work. squares: (groups, splits, H), fp32.
    """
    channels = tl.program_id(0) * CB + tl.arange(0, CB)
    split, group = tl.program_id(1), tl.program_id(2)
    valid = channels < H
    h += group.to(tl.int64) * PIX * H
    bias = tl.load(b1 + channels, mask=valid, other=0.0)[None, :]
    total = tl.zeros((RB, CB), tl.float32)
    for first in range(split * RB, PIX, splits * RB):
        rows = first + tl.arange(0, RB)
        place = rows.to(tl.int64)[:, None] * H + channels[None, :]
        inside = (rows < PIX)[:, None] & valid[None, :]
        value = tl.load(h + place, mask=inside, other=0.0).to(tl.float32) + bias
        value = gelu(value, GELU).to(h.dtype.element_ty)
        tl.store(h + place, value, mask=inside)
        if GRN:
            value = tl.where(inside, value.to(tl.float32), 0.0)
            total += value * value
    if GRN:
        to = squares + (group * splits + split) * H + channels
        tl.store(to, tl.sum(total, 0), mask=valid)


@triton.jit(do_not_specialize=_SIZES)
def scale_hidden(a, scale, M, PIX, H: tl.constexpr, RB: tl.constexpr, CB: tl.constexpr):
    """a[r] *= scale[r // PIX], in place.

    a: (M, H), work. scale: (images, H), fp32. Grid: (M / RB, H / CB).
    """
    rows = tl.program_id(0) * RB + tl.arange(0, RB)
    channels = tl.program_id(1) * CB + tl.arange(0, CB)
    inside = (rows < M)[:, None] & (channels < H)[None, :]
    place = rows.to(tl.int64)[:, None] * H + channels[None, :]
    of_image = (rows // PIX)[:, None] * H + channels[None, :]
    value = tl.load(a + place, mask=inside, other=0.0).to(tl.float32)
    value *= tl.load(scale + of_image, mask=inside, other=0.0)
    tl.store(a + place, value.to(a.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def grn_sums(
    h, s, b1, squares, along, drop, PIX, splits, H: tl.constexpr, RB: tl.constexpr,
    CB: tl.constexpr, GELU: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """The sums over pixels that GRN's backward pass needs; a = gelu(h + b1).

        squares[group, split] = sum over the rows of the split of a^2
        along[group, split] = sum over the rows of the split of a s, times drop[group]

    s is the gradient of GRN's output without drop path. Without DROP the factor is 1.

    h, s: (groups PIX, H), work. squares, along: (groups, splits, H), fp32.
    """
    channels = tl.program_id(0) * CB + tl.arange(0, CB)
    split, group = tl.program_id(1), tl.program_id(2)
    valid = channels < H
    start = group.to(tl.int64) * PIX * H
    h += start
    s += start
    bias = tl.load(b1 + channels, mask=valid, other=0.0)[None, :]
    total = tl.zeros((RB, CB), tl.float32)
    total_along = tl.zeros((RB, CB), tl.float32)
    for first in range(split * RB, PIX, splits * RB):
        rows = first + tl.arange(0, RB)
        place = rows.to(tl.int64)[:, None] * H + channels[None, :]
        inside = (rows < PIX)[:, None] & valid[None, :]
        value = tl.load(h + place, mask=inside, other=0.0).to(tl.float32) + bias
        # Rounded, as in the forward pass.
        value = gelu(value, GELU).to(h.dtype.element_ty).to(tl.float32)
        value = tl.where(inside, value, 0.0)
        total += value * value
        total_along += value * tl.load(s + place, mask=inside, other=0.0).to(tl.float32)
    of_image = tl.sum(total_along, 0)
    if DROP:
        of_image *= tl.load(drop + group)
    to = (group * splits + split) * H + channels
    tl.store(squares + to, tl.sum(total, 0), mask=valid)
    tl.store(along + to, of_image, mask=valid)


@triton.jit(do_not_specialize=_SIZES)
def hidden_backward(
    h, s, b1, scale, slope, drop, parts_b1, PIX, START, IMAGE, splits, H: tl.constexpr,
    RB: tl.constexpr, CB: tl.constexpr, GELU: tl.constexpr, GRN: tl.constexpr,
    DROP: tl.constexpr,
):  # fmt: skip
    """The backward pass between the products, in place; a = gelu(h + b1).

        without GRN    s' = f s gelu'(h + b1)                         h' = f a
        with GRN       s' = (f s scale + a slope) gelu'(h + b1)       h' = f a scale
        parts_b1[group, split] = sum over the rows of the split of s'

    h holds the first product y W1'^T, s the gradient of the second product's input
    without drop path. h becomes h', from which follows the gradient of W2', and s
    becomes s', the gradient of GELU's input. f is 1, or with DROP the drop path factor
    of each row's image.

    h, s: (groups PIX, H), work. scale, slope: (groups, H), fp32, of ``grn.grn_slopes``.
    parts_b1: (groups, splits, H), fp32. START: the index of the first row among all
    rows. IMAGE: the pixels of an image.
    """
    channels = tl.program_id(0) * CB + tl.arange(0, CB)
    split, group = tl.program_id(1), tl.program_id(2)
    valid = channels < H
    start = group.to(tl.int64) * PIX * H
    h += start
    s += start
    START += group * PIX
    bias = tl.load(b1 + channels, mask=valid, other=0.0)[None, :]
    if GRN:
        of_group = group * H + channels
        by = tl.load(scale + of_group, mask=valid, other=0.0)[None, :]
        more = tl.load(slope + of_group, mask=valid, other=0.0)[None, :]
    total = tl.zeros((RB, CB), tl.float32)
    for first in range(split * RB, PIX, splits * RB):
        rows = first + tl.arange(0, RB)
        place = rows.to(tl.int64)[:, None] * H + channels[None, :]
        inside = (rows < PIX)[:, None] & valid[None, :]
        value = tl.load(h + place, mask=inside, other=0.0).to(tl.float32) + bias
        a, rise = gelu_and_slope(value, GELU)
        grad = tl.load(s + place, mask=inside, other=0.0).to(tl.float32)
        if DROP:
            share = tl.load(drop + (START + rows) // IMAGE, mask=rows < PIX, other=0.0)
            grad *= share[:, None]
        if GRN:
            grad = grad * by + a * more
            a *= by
        if DROP:
            a *= share[:, None]
        grad = tl.where(inside, grad * rise, 0.0)
        tl.store(h + place, a.to(h.dtype.element_ty), mask=inside)
        tl.store(s + place, grad.to(s.dtype.element_ty), mask=inside)
        total += grad
    to = parts_b1 + (group * splits + split) * H + channels
    tl.store(to, tl.sum(total, 0), mask=valid)
