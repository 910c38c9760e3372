"""Finds the ``Stage`` that computes an input the fastest way."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import ways
from .description import NONE, StageSpec, Types
from .stage import Stage, stage_of

ALIGNMENT = 16  # bytes; kernels read that many at a time


def stage_for(
    spec: StageSpec,
    types: Types,
    x: Tensor,
    parameters: Sequence[Tensor],
    drops: bool,
    normed: torch.dtype | None,
) -> Stage | None:
    """The ``Stage`` with the best plan for an input; None if plain PyTorch is best.

    Args:
        spec, types: of the stage.
        x: the input, (N, C, H, W).
        parameters: in the order of ``StageSpec``.
        drops: whether drop path factors are passed.
        normed: the type of the normed map, or None.
    """
    if any(t.data_ptr() % ALIGNMENT for t in parameters):
        return None
    strides = strides_of(spec, parameters)
    h, w = spec.out_size(*x.shape[2:])
    use = ways.Use(len(x) * h * w, w, drops, normed, torch.is_grad_enabled())
    device = x.device.index if x.is_cuda else None
    choice = ways.choose(spec, types, strides, device, use)
    if choice.plan is None:
        return None
    return stage_of(spec, types, choice.plan, strides, device)


def strides_of(spec: StageSpec, parameters: Sequence[Tensor]) -> tuple[int, ...]:
    """The strides of the entrance's convolution weight; () without an entrance."""
    if spec.entrance == NONE:
        return ()
    return parameters[spec.entrance_weight].stride()
