"""Describes a stage, its number types, its input and the gradients that are needed.

Programs depend on nothing else. The descriptions hold no tensors and serve as keys of
caches.
"""

from typing import NamedTuple

import torch

from .kernels.parameters import COLUMNS

# Entrances: what a stage begins with.
STEM, DOWNSAMPLE, NONE = "stem", "downsample", "none"


class StageSpec(NamedTuple):
    """The structure of a stage: an entrance, blocks and a norm of the output map.

    The parameters of a stage have this order:

    - the entrance's four. Stem: weight, bias, norm weight, norm bias. Downsample layer:
      norm weight, norm bias, weight, bias.
    - ``block_parameters`` of each block.
    - weight and bias of the output norm.

    Attributes:
        entrance: STEM, DOWNSAMPLE or NONE.
        before: channels of the input.
        channels: C, the channels of the stage.
        blocks: the number of blocks.
        layer_scale: whether each block has layer scale (gamma).
        grn: whether each block has GRN (gamma and beta).
        norm: whether the output map has a norm.
        eps: the epsilon of all LayerNorms.
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
        """The number of the entrance's parameters."""
        return 0 if self.entrance == NONE else 4

    @property
    def block_parameters(self) -> int:
        """The number of a block's parameters.

        Their order: weight and bias of the depthwise convolution, of the norm, of the
        first linear layer (w1, b1) and of the second (w2, b2); then layer scale, then
        GRN's gamma and beta, if the block has them.
        """
        return 8 + self.layer_scale + 2 * self.grn

    @property
    def grn_gamma(self) -> int:
        """The index of GRN's gamma among a block's parameters."""
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
        """The shapes of all parameters, in order."""
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

    @property
    def entrance_weight(self) -> int:
        """The index of the entrance's convolution weight among the parameters."""
        return 2 if self.entrance == DOWNSAMPLE else 0

    @property
    def stride(self) -> int:
        """Pixels of the input, in each direction, for one pixel of the stage's maps."""
        return {STEM: 4, DOWNSAMPLE: 2, NONE: 1}[self.entrance]

    def out_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the stage's maps, from those of its input."""
        return height // self.stride, width // self.stride


class Types(NamedTuple):
    """The number types of a stage.

    Attributes:
        work: of the products' operands and of the maps kept for the backward pass.
        stream: of the residual stream, which goes from block to block.
        parameters: of all parameters.
        precision: of fp32 products in the stem, "tf32" or "ieee".
    """

    work: torch.dtype
    stream: torch.dtype
    parameters: torch.dtype
    precision: str = "ieee"

    @property
    def split(self) -> bool:
        """Whether the residual stream is wider than ``work``."""
        return self.work != self.stream


class Shape(NamedTuple):
    """The input of a program.

    Attributes:
        n, height, width: batch size and size of the input.
        dtype: of the input.
        strides: of the image. () for other inputs: only the stem reads any layout.
        drop: whether drop path factors are passed.
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
    """The gradients that are needed of one block.

    Attributes:
        first: of the folded matrix W1', from which follow those of w1 and of the norm's
            weight.
        b1: of the folded bias b1', for b1, the norm's bias and w1.
        second: of W2', for w2 and layer scale.
        b2: of b2', for b2, layer scale, GRN's beta and w2.
        taps: of the depthwise convolution's weight.
        dw_bias: of its bias.
        below: of the block's input.
        grn: of GRN's gamma.
    """

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
        """Whether the gradient of the norm's input is needed on the way."""
        return self.taps or self.dw_bias or self.below

    @property
    def any_parameter(self) -> bool:
        """Whether the gradient of any of the block's parameters is needed."""
        return any(self._replace(below=False))


class Needs(NamedTuple):
    """The gradients that a backward program needs to compute, and those it starts from.

    Attributes:
        requires_grad: whether a gradient is needed: of the input, then of each
            parameter.
        g: whether there is a gradient of the residual stream.
        g_normed: whether there is a gradient of the normed map.
        strides: of ``g_normed``; () if it is in channels_last.
    """

    requires_grad: tuple[bool, ...]
    g: bool
    g_normed: bool
    strides: tuple[int, ...] = ()
