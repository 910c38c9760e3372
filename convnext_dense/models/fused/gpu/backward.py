"""The backward pass of a stage, launch by launch: only what is wanted.

The gradient of the residual stream goes back in the stream's own type, ``wide``; where
that is wider than the type of work a second buffer, ``narrow``, has it for the
products. Of a block everything but its input is made again.
"""

from typing import NamedTuple

import torch

from . import depthwise
from .description import DOWNSAMPLE, STEM, BlockNeeds, Needs, Shape, StageKind
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
    """The gradient of the stream: as it comes in or is made by the launch before
    (``given``), where the next launch puts it (``wide``), and in the type of work."""

    given: Ref
    wide: Ref
    narrow: Ref


def block_needs(places: Places, needs: Needs, block: int) -> BlockNeeds:
    """Which gradients of a block are wanted."""
    kind = places.kind
    first = 1 + places.of_block(block, 0)  # after the input
    wanted = needs.wanted[first : first + kind.block_parameters]
    dw, dw_bias, norm_weight, norm_bias, w1, b1, w2, b2 = wanted[:8]
    gamma = kind.layer_scale and wanted[8]
    grn_gamma, grn_beta = wanted[-2:] if kind.grn else (False, False)
    return BlockNeeds(
        first=w1 or norm_weight,
        b1=b1 or norm_bias or w1,
        second=w2 or gamma,
        b2=b2 or gamma or grn_beta or w2,
        taps=dw,
        dw_bias=dw_bias,
        below=any(needs.wanted[:first]),
        grn=grn_gamma,
    )


class _RoomInDx:
    """Places in dx, which is written last of all, and when it is full in the workspace.

    A downsampling stage's dx has room for the gradient of the stream, y and du. Where
    there is no entrance dx is the gradient of the stream itself, which comes first.
    """

    def __init__(self, kind: StageKind, s: Shape, needs: Needs, ws: Workspace):
        self._dx, self._ws = Workspace("dx"), ws
        self._size = 0
        if needs.wanted[0]:
            self._size = s.n * s.height * s.width * kind.before * s.dtype.itemsize

    def take(self, count: int, dtype: torch.dtype) -> Ref:
        if self._dx.used + count * dtype.itemsize <= self._size:
            return self._dx.take(count, dtype)
        return self._ws.take(count, dtype)


def backward_program(places: Places, s: Shape, needs: Needs) -> Program:
    """From the gradients of out and of the normed map to dx and grads."""
    kind, types = places.kind, places.types
    c = kind.channels
    h, w = kind.out_size(s.height, s.width)
    m = s.n * h * w
    p, ws = Program(places.bases), Workspace("ws")
    folded = Folded(p, places, ws)
    raw_b2 = ws.take(kind.blocks * c, f32)  # the gradients of b2'
    rstd = ws.take(m, f32)
    room = _RoomInDx(kind, s, needs, ws)
    wide = room.take(m * c, types.stream)
    y, du = room.take(m * c, types.work), room.take(m * c, types.work)
    narrow = ws.take(m * c, types.work) if types.split else None
    gradient = _output_norm(p, places, s, needs, wide, narrow, m, ws)

    inputs = places.inputs(m)
    lowest = kind.blocks
    for block in reversed(range(kind.blocks)):
        need = block_needs(places, needs, block)
        if not (need.any_parameter or need.below):
            break
        lowest = block
        mark = ws.used
        shape = s.n, h, w, c
        depthwise.convolution(p, places, inputs[block], y, shape, block)
        norm_in_place(p, places, y, rstd, m)
        back = HiddenBackward(p, places, s, folded.of(block), block, need, ws)
        wanted = back(y, gradient.narrow, rstd, du, raw_b2.plus(block * c))
        if need.taps:
            wanted.append(
                depthwise.weight_gradient(
                    p, places, inputs[block], du, shape, block, ws
                )
            )
        if need.below:
            args = p, places, du, gradient.given, wide, narrow, shape, block
            depthwise.input_gradient(*args)
            gradient = _Gradient(wide, wide, narrow or wide)
        if wanted:
            p.reduce(wanted, ws)
        ws.used = mark
    _finish_blocks(p, places, needs, lowest, raw_b2)
    if any(needs.wanted[1 : 1 + kind.entrance_parameters]) or needs.wanted[0]:
        if kind.entrance == STEM:
            _stem(p, places, s, gradient, m, ws)
        elif kind.entrance == DOWNSAMPLE:
            _downsample(p, places, s, needs, gradient, m, ws)
    p.workspace = ws.size
    return p


def _output_norm(p, places, s, needs, wide, narrow, m, ws) -> _Gradient:
    """The gradient of the stage's output, by way of the output norm where it has
    one."""
    kind, types = places.kind, places.types
    given = Ref("g", 0, types.stream)
    if not needs.g_normed:
        if narrow is None:
            return _Gradient(given, wide, given)
        copy_map(p, given, narrow, m * kind.channels)
        return _Gradient(given, wide, narrow)
    c, index = kind.channels, places.count - 2
    rows = 2 * row_block(c)
    h, w = kind.out_size(s.height, s.width)
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
            given if needs.g else wide,
            *(wide, narrow or wide, *parts, m, splits, h, w),
            *(needs.strides or (0, 0, 0, 0)),
        ],
        (
            *(c, kind.eps, rows, padded(c), needs.g),
            *(narrow is not None, bool(needs.strides)),
        ),
        8,
    )
    wanted = [
        Sum(part, places.gradient(index + k), splits, c, c)
        for k, part in enumerate(parts)
        if needs.wanted[1 + index + k]
    ]
    if wanted:
        p.reduce(wanted, ws)
    ws.used = mark
    return _Gradient(wide, wide, narrow or wide)


def _finish_blocks(p, places, needs, lowest, raw_b2):
    """Gradients of the folded parameters to the parameters', from block ``lowest``
    on."""
    kind, c = places.kind, places.kind.channels
    blocks = range(lowest, kind.blocks)
    if not any(_folds(block_needs(places, needs, block)) for block in blocks):
        return
    first = places.of_block(lowest, 0)
    p.triton(
        parameters.finish_blocks,
        (
            cdiv(c, 16) + cdiv(c, 4) + (cdiv(4 * c, 64) if kind.grn else 0),
            len(blocks),
        ),
        [
            places.table(lowest),
            places.parameter(places.of_block(0, 4)),
            places.gradient(first),
            raw_b2.plus(lowest * c),
        ],
        (c, kind.layer_scale, kind.grn, places.each, 128, min(512, padded(4 * c))),
    )


def _folds(need: BlockNeeds) -> bool:
    return need.first or need.b1 or need.second or need.b2


def _stem(p, places, s, gradient, m, ws):
    kind = places.kind
    integers, cp, rows = stem_sizes(places, s)
    splits = min(MOST_SPLITS, cdiv(m, rows))
    c = kind.channels
    sizes = [16 * kind.before * c, c, c, c]
    parts = [ws.take(splits * size, f32) for size in sizes]
    p.triton(
        stem_backward,
        (splits,),
        [
            Ref("x", 0, s.dtype),
            *(places.parameter(i) for i in range(3)),
            *(gradient.given, gradient.narrow, *parts, m, splits, *integers),
        ],
        (kind.before, c, cp, rows, kind.eps, places.types.precision),
        8,
        2,
    )
    wanted = [
        Sum(part, places.gradient(i), splits, size, size)
        for i, (part, size) in enumerate(zip(parts, sizes, strict=True))
    ]
    p.reduce(wanted, ws)


def _downsample(p, places, s, needs, gradient, m, ws):
    kind, work = places.kind, places.types.work
    c, before, depth = kind.channels, kind.before, 4 * kind.before
    g = gradient.narrow
    rows, rstd = patches(p, places, s, ws)
    numbers = places.first_parameter
    if any(needs.wanted[1:5]):
        count = 2 * row_block(c)
        splits = min(MOST_SPLITS, cdiv(m, count))
        part = ws.take(splits * c, f32)
        p.triton(
            sums.column_parts,
            (splits,),
            [gradient.given, part, part, m, splits, 1],
            (c, padded(c), count, False),
            8,
        )
        p.reduce([Sum(part, places.gradient(numbers["bias"]), splits, c, c)], ws)
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
    if needs.wanted[0]:
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
