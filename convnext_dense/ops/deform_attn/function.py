"""The autograd function of multi-scale deformable attention.

mmcv's own function casts the locations and the weights to the value's type. In bf16
that moves a sample by up to half a cell. This function casts nothing.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import operators


class MultiScaleDeformableAttnFunction(torch.autograd.Function):
    """The attention with its gradients, with the arguments of mmcv's function.

    The shapes are those of the package's docstring. Value, locations and weights may
    have different float types. Each gradient has the type of its input.

    Raises:
        RuntimeError: the batch is larger than ``im2col_step`` and no multiple of it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        sampling_loc: Tensor,
        attn_weight: Tensor,
        im2col_step: int,
    ) -> Tensor:
        """The output (N, Q, M D), in the type of ``value``."""
        inputs = value, spatial_shapes, level_start_index, sampling_loc, attn_weight
        ctx.save_for_backward(*inputs)
        ctx.im2col_step = im2col_step
        return operators.ms_deform_attn_forward(*inputs, im2col_step=im2col_step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of value, locations and weights; None for the others."""
        value, shapes, starts, sampling_loc, attn_weight = ctx.saved_tensors
        grads = [torch.zeros_like(t) for t in (value, sampling_loc, attn_weight)]
        operators.ms_deform_attn_backward(
            *(value, shapes, starts, sampling_loc, attn_weight, grad_output),
            *(*grads, ctx.im2col_step),
        )
        return grads[0], None, None, *grads[1:], None


def attend(
    value: Tensor, spatial_shapes: Tensor, sampling_loc: Tensor, attn_weight: Tensor
) -> Tensor:
    """The attention with its gradients, for levels that follow one another in value.

    Nothing waits for a GPU that has the shapes.
    """
    spatial_shapes = torch.as_tensor(spatial_shapes, device=value.device)
    cells = spatial_shapes.prod(1)
    return MultiScaleDeformableAttnFunction.apply(
        value,
        spatial_shapes,
        cells.cumsum(0) - cells,
        sampling_loc,
        attn_weight,
        max(1, len(value)),
    )
