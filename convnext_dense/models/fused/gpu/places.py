"""Where everything of a stage lies: parameters, gradients, what is kept."""

import math
from functools import cached_property

import torch

from .description import DOWNSAMPLE, NONE, STEM, StageKind, Types
from .plan import Plan
from .program import Ref, f32

# The tensors that programs are given, before the stage's parameters.
BASES = (
    "x",  # the stage's input
    "out",  # its output: the residual stream
    "kept",  # the blocks' inputs, for the backward pass
    "normed",  # the output map
    "drop",  # drop path's factors, (blocks, N)
    "table",  # the addresses of the blocks' parameters
    "g",  # the gradient of out
    "g_normed",  # of normed
    "dx",  # of x
    "grads",  # of all parameters, one after the other, in fp32
    "ws",  # the workspace
    "jobs",  # the program's own table of sums
)


class Places:
    """The addresses that programs of a stage use, as ``Ref``s.

    Args:
        kind: the stage.
        types: of its numbers.
        plan: how it is computed.
        strides: of the entrance's convolution weight.
        multiprocessors: of the device.
    """

    def __init__(
        self,
        kind: StageKind,
        types: Types,
        plan: Plan,
        strides: tuple[int, ...],
        multiprocessors: int,
    ):
        self.kind, self.types, self.plan = kind, types, plan
        self.multiprocessors, self.strides = multiprocessors, strides
        self.sizes = [math.prod(shape) for shape in kind.shapes]
        self.count = len(self.sizes)
        self.bases = BASES + tuple(f"p{i}" for i in range(self.count))

    @cached_property
    def starts(self) -> list[int]:
        """Where each parameter's gradient begins in ``grads``; last, its end."""
        starts = [0]
        for size in self.sizes:
            starts.append(starts[-1] + size)
        return starts

    @property
    def each(self) -> int:
        """Numbers of a block's gradients."""
        first = self.kind.entrance_parameters
        return sum(self.sizes[first : first + self.kind.block_parameters])

    def parameter(self, index: int) -> Ref:
        return Ref(f"p{index}", 0, self.types.parameters)

    def gradient(self, index: int) -> Ref:
        return Ref("grads", 4 * self.starts[index], f32)

    def of_block(self, block: int, index: int) -> int:
        """The number among the stage's parameters of a block's."""
        kind = self.kind
        return kind.entrance_parameters + block * kind.block_parameters + index

    def drop(self, block: int, images: int) -> Ref:
        return Ref("drop", 4 * block * images, f32)

    def table(self, block: int = 0) -> Ref:
        return Ref("table", 88 * block, torch.int64)

    def inputs(self, rows: int) -> list[Ref]:
        """Each block's input, in the type of work, as it is kept for training."""
        work, size = self.types.work, _map_bytes(self.kind, self.types, rows)
        if _keeps_input_itself(self.kind, self.types):
            kept = [Ref("kept", b * size, work) for b in range(self.kind.blocks - 1)]
            return [Ref("x", 0, work), *kept]
        return [Ref("kept", b * size, work) for b in range(self.kind.blocks)]

    @property
    def first_parameter(self) -> dict[str, int]:
        """The numbers of the entrance's parameters, by name."""
        names = {
            STEM: ("weight", "bias", "norm_weight", "norm_bias"),
            DOWNSAMPLE: ("norm_weight", "norm_bias", "weight", "bias"),
            NONE: (),
        }[self.kind.entrance]
        return {name: index for index, name in enumerate(names)}


def kept_bytes(kind: StageKind, types: Types, rows: int) -> int:
    """What the backward pass needs beside the stage's input and output."""
    own = kind.blocks - _keeps_input_itself(kind, types)
    return own * _map_bytes(kind, types, rows)


def _keeps_input_itself(kind: StageKind, types: Types) -> bool:
    """Whether the first block's input is the stage's, in the type of work."""
    return kind.entrance == NONE and not types.split


def _map_bytes(kind: StageKind, types: Types, rows: int) -> int:
    return rows * kind.channels * types.work.itemsize


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def padded(count: int) -> int:
    """The next power of two."""
    return 1 << max(count - 1, 0).bit_length()


def row_block(channels: int) -> int:
    """Rows of a program that has all channels of them."""
    return max(1, 2048 // padded(channels))
