"""Writes the program of a stage's backward pass, with only the launches it needs.

The gradient of the residual stream is kept in the stream's type (``wide``). If that is
wider than ``types.work``, a second buffer (``narrow``) has it in ``types.work`` for the
products. Each block is computed again from its input.
"""

from typing import NamedTuple

import torch

from . import depthwise
from .description import DOWNSAMPLE, STEM, BlockNeeds, Needs, Shape, StageSpec
from .forward import (
    MOST_SPLITS,
    Folded,
    copy_map,
    downsample_matrix,
    norm_in_place,
    patches,
    stem_sizes,
)
from .hidden_backward import HiddenBackward
from .kernels import downsample, norm, parameters, sums
from .kernels.stem import stem_backward
from .places import Places, cdiv, padded, row_block
from .program import Program, Ref, Sum, Workspace, f32


class _Gradient(NamedTuple):
    """The buffers of the residual stream's gradient.

    Attributes:
        incoming: the gradient, in the stream's type.
        wide: where the next block writes it, in the stream's type.
        narrow: the gradient in ``types.work``.
    """

    incoming: Ref
    wide: Ref
    narrow: Ref


def block_needs(places: Places, needs: Needs, block: int) -> BlockNeeds:
    """The gradients that are needed of a block."""
    spec = places.spec
    first = 1 + places.of_block(block, 0)  # after the input
    flags = needs.requires_grad[first : first + spec.block_parameters]
    dw, dw_bias, norm_weight, norm_bias, w1, b1, w2, b2 = flags[:8]
    gamma = spec.layer_scale and flags[8]
    grn_gamma, grn_beta = flags[-2:] if spec.grn else (False, False)
    return BlockNeeds(
        first=w1 or norm_weight,
        b1=b1 or norm_bias or w1,
        second=w2 or gamma,
        b2=b2 or gamma or grn_beta or w2,
        taps=dw,
        dw_bias=dw_bias,
        below=any(needs.requires_grad[:first]),
        grn=grn_gamma,
    )


class _RoomInDx:
    """Allocates buffers in dx, and in the workspace when dx is full.

    dx is written last, so it is free until then. That of a downsample layer has room
    for the gradient of the stream, y and du. Without an entrance the first buffer, the
    gradient of the stream, becomes dx itself.
    """

    def __init__(self, spec: StageSpec, s: Shape, needs: Needs, ws: Workspace):
        self._dx, self._ws = Workspace("dx"), ws
        self._size = 0
        if needs.requires_grad[0]:
            self._size = s.n * s.height * s.width * spec.before * s.dtype.itemsize

    def take(self, count: int, dtype: torch.dtype) -> Ref:
        """Room for ``count`` numbers."""
        if self._dx.used + count * dtype.itemsize <= self._size:
            return self._dx.take(count, dtype)
        return self._ws.take(count, dtype)


def backward_program(places: Places, s: Shape, needs: Needs) -> Program:
    """The program that computes ``dx`` and ``grads`` from ``g`` and ``g_normed``.

    Args:
        places: the stage's.
        s: the input's shape.
        needs: the gradients to compute.
    """
    spec, types = places.spec, places.types
    c = spec.channels
    h, w = spec.out_size(s.height, s.width)
    m = s.n * h * w
    p, ws = Program(places.bases), Workspace("ws")
    folded = Folded(p, places, ws)
    raw_b2 = ws.take(spec.blocks * c, f32)  # the gradients of b2'
    rstd = ws.take(m, f32)
    room = _RoomInDx(spec, s, needs, ws)
    wide = room.take(m * c, types.stream)
    y, du = room.take(m * c, types.work), room.take(m * c, types.work)
    narrow = ws.take(m * c, types.work) if types.split else None
    gradient = _output_norm(p, places, s, needs, wide, narrow, m, ws)

    inputs = places.inputs(m)
    lowest = spec.blocks
    for block in reversed(range(spec.blocks)):
        need = block_needs(places, needs, block)
        if not (need.any_parameter or need.below):
            break
        lowest = block
        mark = ws.used
        shape = s.n, h, w, c
        depthwise.convolution(p, places, inputs[block], y, shape, block)
        norm_in_place(p, places, y, rstd, m)
        back = HiddenBackward(p, places, s, folded.of(block), block, need, ws)
        partial_sums = back(y, gradient.narrow, rstd, du, raw_b2.plus(block * c))
        if need.taps:
            partial_sums.append(
                depthwise.weight_gradient(
                    p, places, inputs[block], du, shape, block, ws
                )
            )
        if need.below:
            args = p, places, du, gradient.incoming, wide, narrow, shape, block
            depthwise.input_gradient(*args)
            gradient = _Gradient(wide, wide, narrow or wide)
        if partial_sums:
            p.reduce(partial_sums, ws)
        ws.used = mark
    _finish_blocks(p, places, needs, lowest, raw_b2)
    if (
        any(needs.requires_grad[1 : 1 + spec.entrance_parameters])
        or needs.requires_grad[0]
    ):
        if spec.entrance == STEM:
            _stem(p, places, s, gradient, m, ws)
        elif spec.entrance == DOWNSAMPLE:
            _downsample(p, places, s, needs, gradient, m, ws)
    p.workspace = ws.size
    return p


def _output_norm(p, places, s, needs, wide, narrow, m, ws) -> _Gradient:
    """Append the backward pass of the output norm, if ``g_normed`` exists.

    Returns the gradient of the last block's output.
    """
    spec, types = places.spec, places.types
    incoming = Ref("g", 0, types.stream)
    if not needs.g_normed:
        if narrow is None:
            return _Gradient(incoming, wide, incoming)
        copy_map(p, incoming, narrow, m * spec.channels)
        return _Gradient(incoming, wide, narrow)
    c, index = spec.channels, places.count - 2
    rows = 2 * row_block(c)
    h, w = spec.out_size(s.height, s.width)
    splits = min(MOST_SPLITS, cdiv(m, rows))
    mark = ws.used
    parts = [ws.take(splits * c, f32) for _ in range(2)]
    p.triton(
        norm.output_norm_backward,
        (splits,),
        [
            Ref("out", 0, types.stream),
            places.parameter(index),
            Ref("g_normed", 0, s.normed),
            incoming if needs.g else wide,
            *(wide, narrow or wide, *parts, m, splits, h, w),
            *(needs.strides or (0, 0, 0, 0)),
        ],
        (
            *(c, spec.eps, rows, padded(c), needs.g),
            *(narrow is not None, bool(needs.strides)),
        ),
        8,
    )
    partial_sums = [
        Sum(part_sums, places.gradient(index + k), splits, c, c)
        for k, part_sums in enumerate(parts)
        if needs.requires_grad[1 + index + k]
    ]
    if partial_sums:
        p.reduce(partial_sums, ws)
    ws.used = mark
    return _Gradient(wide, wide, narrow or wide)


def _finish_blocks(p, places, needs, lowest, raw_b2):
    """Append the launch that turns the folded parameters' gradients into those of the
    parameters, from block ``lowest`` on."""
    spec, c = places.spec, places.spec.channels
    blocks = range(lowest, spec.blocks)
    if not any(_folds(block_needs(places, needs, block)) for block in blocks):
        return
    first = places.of_block(lowest, 0)
    p.triton(
        parameters.finish_blocks,
        (
            cdiv(c, 16) + cdiv(c, 4) + (cdiv(4 * c, 64) if spec.grn else 0),
            len(blocks),
        ),
        [
            places.table(lowest),
            places.parameter(places.of_block(0, 4)),
            places.gradient(first),
            raw_b2.plus(lowest * c),
        ],
        (c, spec.layer_scale, spec.grn, places.each, 128, min(512, padded(4 * c))),
    )


def _folds(need: BlockNeeds) -> bool:
    """Whether a gradient of a folded parameter is needed."""
    return need.first or need.b1 or need.second or need.b2


def _stem(p, places, s, gradient, m, ws):
    """Append the gradients of the stem's four parameters."""
    spec = places.spec
    integers, cp, rows = stem_sizes(places, s)
    splits = min(MOST_SPLITS, cdiv(m, rows))
    c = spec.channels
    sizes = [16 * spec.before * c, c, c, c]
    parts = [ws.take(splits * size, f32) for size in sizes]
    p.triton(
        stem_backward,
        (splits,),
        [
            Ref("x", 0, s.dtype),
            *(places.parameter(i) for i in range(3)),
            *(gradient.incoming, gradient.narrow, *parts, m, splits, *integers),
        ],
        (spec.before, c, cp, rows, spec.eps, places.types.precision),
        8,
        2,
    )
    partial_sums = [
        Sum(part_sums, places.gradient(i), splits, size, size)
        for i, (part_sums, size) in enumerate(zip(parts, sizes, strict=True))
    ]
    p.reduce(partial_sums, ws)


def _downsample(p, places, s, needs, gradient, m, ws):
    """Append the gradients of the downsample layer's parameters and input."""
    spec, work = places.spec, places.types.work
    c, before, depth = spec.channels, spec.before, 4 * spec.before
    g = gradient.narrow
    rows, rstd = patches(p, places, s, ws)
    numbers = places.first_parameter
    if any(needs.requires_grad[1:5]):
        count = 2 * row_block(c)
        splits = min(MOST_SPLITS, cdiv(m, count))
        parts = ws.take(splits * c, f32)
        p.triton(
            sums.column_parts,
            (splits,),
            [gradient.incoming, parts, parts, m, splits, 1],
            (c, padded(c), count, False),
            8,
        )
        p.reduce([Sum(parts, places.gradient(numbers["bias"]), splits, c, c)], ws)
        of_matrix = ws.take(c * depth, f32)
        p.product(of_matrix, g, rows, c, depth, m, ta=True)
        names = ("norm_weight", "norm_bias", "weight", "bias")
        p.triton(
            downsample.finish_downsample,
            (cdiv(before, 16),),
            [
                of_matrix,
                *(places.gradient(numbers[name]) for name in names),
                *(places.parameter(numbers[n]) for n in ("weight", *names[:2])),
                *(c, *places.strides),
            ],
            (before, 256),
            8,
        )
    if needs.requires_grad[0]:
        matrix, _ = downsample_matrix(p, places, ws)
        dy = ws.take(m * depth, work)
        p.product(dy, g, matrix, m, depth, c)
        pixels = s.n * s.height * s.width
        count = row_block(before)
        p.triton(
            downsample.norm_patches_backward,
            (cdiv(pixels, count),),
            [dy, rows, rstd, Ref("dx", 0, s.dtype), pixels, s.height, s.width],
            (before, count, padded(before)),
        )
