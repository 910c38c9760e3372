"""What a stage is, and what its programs depend on: keys of caches, without tensors."""

from typing import NamedTuple

import torch

from .kernels.parameters import COLUMNS

# How a stage begins.
STEM, DOWNSAMPLE, NONE = "stem", "downsample", "none"


class StageKind(NamedTuple):
    """A stage: its entrance, its blocks, and the norm of its output map if there is
    one.

    Its parameters come in this order: the entrance's four (stem: weight, bias, norm's
    weight, norm's bias; downsampling: norm's weight, norm's bias, weight, bias); of
    each block ``block_parameters``; the output norm's weight and bias.

    Attributes:
        entrance: STEM, DOWNSAMPLE or NONE.
        before: channels of what comes in.
        channels: C.
        blocks: how many.
        layer_scale, grn: whether each block has gamma; GRN's gamma and beta.
        norm: whether the output map has a norm.
        eps: of all norms.
    """

    entrance: str
    before: int
    channels: int
    blocks: int
    layer_scale: bool
    grn: bool
    norm: bool
    eps: float

    @property
    def entrance_parameters(self) -> int:
        return 0 if self.entrance == NONE else 4

    @property
    def block_parameters(self) -> int:
        """How many parameters a block has.

        They are, in this order: weight and bias of the depthwise convolution, of the
        norm, of the first matrix (w1, b1) and of the second (w2, b2); then gamma, then
        GRN's gamma and beta, if the block has them.
        """
        return 8 + self.layer_scale + 2 * self.grn

    @property
    def grn_gamma(self) -> int:
        """The number of GRN's gamma among a block's parameters."""
        return 8 + self.layer_scale

    @property
    def columns(self) -> list[int]:
        """The column of each block parameter in the table of ``kernels.parameters``."""
        columns = list(range(8))
        if self.layer_scale:
            columns.append(8)
        if self.grn:
            columns += [COLUMNS - 2, COLUMNS - 1]
        return columns

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of all parameters."""
        c, before = self.channels, self.before
        shapes: list[tuple[int, ...]] = {
            STEM: [(c, before, 4, 4), (c,), (c,), (c,)],
            DOWNSAMPLE: [(before,), (before,), (c, before, 2, 2), (c,)],
            NONE: [],
        }[self.entrance]
        block: list[tuple[int, ...]] = [(c, 1, 7, 7), (c,), (c,), (c,)]
        block += [(4 * c, c), (4 * c,), (c, 4 * c), (c,)]
        block += [(c,)] * self.layer_scale + [(4 * c,), (4 * c,)] * self.grn
        return [*shapes, *block * self.blocks, *[(c,), (c,)] * self.norm]

    def out_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the stage's maps, from those of its input."""
        stride = {STEM: 4, DOWNSAMPLE: 2, NONE: 1}[self.entrance]
        return height // stride, width // stride


class Types(NamedTuple):
    """``work``: of the products and of what is kept. ``stream``: of the residual
    stream, from block to block. ``parameters``: of all parameters. ``precision``: of
    fp32 products in the stem, "tf32" or "ieee"."""

    work: torch.dtype
    stream: torch.dtype
    parameters: torch.dtype
    precision: str = "ieee"

    @property
    def split(self) -> bool:
        """Whether the stream is wider than what is computed with."""
        return self.work != self.stream


class Shape(NamedTuple):
    """The input of a program.

    Attributes:
        n, height, width: of the input.
        dtype, strides: of the image; the stem alone reads any.
        drop: whether drop path's factors are given.
        normed: the type of the normed output map, or None.
    """

    n: int
    height: int
    width: int
    dtype: torch.dtype
    strides: tuple[int, ...]
    drop: bool
    normed: torch.dtype | None


class BlockNeeds(NamedTuple):
    """Which gradients of a block are wanted: of the first matrix or the norm's weight;
    of b1 or the norm's bias; of the second matrix or layer scale; of b2; of the
    depthwise weight; of its bias; of the block's input; of GRN's gamma."""

    first: bool
    b1: bool
    second: bool
    b2: bool
    taps: bool
    dw_bias: bool
    below: bool
    grn: bool

    @property
    def norm_input(self) -> bool:
        return self.taps or self.dw_bias or self.below

    @property
    def any_parameter(self) -> bool:
        return any(self._replace(below=False))


class Needs(NamedTuple):
    """Which gradients of a stage are wanted, and which come in.

    Attributes:
        wanted: of the input, then of each parameter.
        g, g_normed: whether there is a gradient of the stream, and of the normed map.
        strides: of the latter, where it is not in channels_last.
    """

    wanted: tuple[bool, ...]
    g: bool
    g_normed: bool
    strides: tuple[int, ...] = ()
