"""The addresses of a stage's parameters, gradients and kept maps, as ``Ref``s."""

import math
from functools import cached_property

import torch

from .description import DOWNSAMPLE, NONE, STEM, StageSpec, Types
from .plan import Plan
from .program import Ref, f32

# The tensors that are passed to a program, before the stage's parameters.
BASES = (
    "x",  # the stage's input
    "out",  # its output: the residual stream
    "kept",  # the blocks' inputs, for the backward pass
    "normed",  # the normed output map
    "drop",  # drop path factors, (blocks, N)
    "table",  # the addresses of the blocks' parameters
    "g",  # the gradient of out
    "g_normed",  # the gradient of normed
    "dx",  # the gradient of x
    "grads",  # the gradients of all parameters, one after the other, in fp32
    "ws",  # the workspace
    "jobs",  # the program's own table of sums
)


class Places:
    """The addresses that the programs of a stage use, as ``Ref``s.

    Args:
        spec: the stage.
        types: its number types.
        plan: the kernels that compute it.
        strides: of the entrance's convolution weight.
        multiprocessors: the number of the device's multiprocessors.
    """

    def __init__(
        self,
        spec: StageSpec,
        types: Types,
        plan: Plan,
        strides: tuple[int, ...],
        multiprocessors: int,
    ):
        self.spec, self.types, self.plan = spec, types, plan
        self.multiprocessors, self.strides = multiprocessors, strides
        self.sizes = [math.prod(shape) for shape in spec.shapes]
        self.count = len(self.sizes)
        self.bases = BASES + tuple(f"p{i}" for i in range(self.count))

    @cached_property
    def starts(self) -> list[int]:
        """Where each parameter's gradient begins in ``grads``; last, where all end."""
        starts = [0]
        for size in self.sizes:
            starts.append(starts[-1] + size)
        return starts

    @property
    def each(self) -> int:
        """How many numbers the gradients of one block have."""
        first = self.spec.entrance_parameters
        return sum(self.sizes[first : first + self.spec.block_parameters])

    def parameter(self, index: int) -> Ref:
        """The parameter with an index among all of the stage's."""
        return Ref(f"p{index}", 0, self.types.parameters)

    def gradient(self, index: int) -> Ref:
        """The gradient of the parameter with an index among all of the stage's."""
        return Ref("grads", 4 * self.starts[index], f32)

    def of_block(self, block: int, index: int) -> int:
        """The index among the stage's parameters of a block's parameter ``index``."""
        spec = self.spec
        return spec.entrance_parameters + block * spec.block_parameters + index

    def drop(self, block: int, images: int) -> Ref:
        """A block's drop path factors, (images,) in fp32."""
        return Ref("drop", 4 * block * images, f32)

    def table(self, block: int = 0) -> Ref:
        """The table of parameter addresses, from a block's row on."""
        return Ref("table", 88 * block, torch.int64)

    def inputs(self, rows: int) -> list[Ref]:
        """Each block's input as training keeps it, (rows, C) in ``types.work``."""
        work, size = self.types.work, _map_bytes(self.spec, self.types, rows)
        if _input_is_kept_anyway(self.spec, self.types):
            kept = [Ref("kept", b * size, work) for b in range(self.spec.blocks - 1)]
            return [Ref("x", 0, work), *kept]
        return [Ref("kept", b * size, work) for b in range(self.spec.blocks)]

    @property
    def first_parameter(self) -> dict[str, int]:
        """The index of each of the entrance's parameters, by name."""
        names = {
            STEM: ("weight", "bias", "norm_weight", "norm_bias"),
            DOWNSAMPLE: ("norm_weight", "norm_bias", "weight", "bias"),
            NONE: (),
        }[self.spec.entrance]
        return {name: index for index, name in enumerate(names)}


def kept_bytes(spec: StageSpec, types: Types, rows: int) -> int:
    """The bytes that the backward pass needs beside the stage's input and output."""
    maps = spec.blocks - _input_is_kept_anyway(spec, types)
    return maps * _map_bytes(spec, types, rows)


def _input_is_kept_anyway(spec: StageSpec, types: Types) -> bool:
    """Whether the first block's input is the stage's input, which autograd keeps."""
    return spec.entrance == NONE and not types.split


def _map_bytes(spec: StageSpec, types: Types, rows: int) -> int:
    """The bytes of a map of the stage in ``types.work``."""
    return rows * spec.channels * types.work.itemsize


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def padded(count: int) -> int:
    """The smallest power of two that is not below ``count``."""
    return 1 << max(count - 1, 0).bit_length()


def row_block(channels: int) -> int:
    """The rows of a Triton program that holds all channels of each row."""
    return max(1, 2048 // padded(channels))
