"""The stage by whichever way is the fastest for an input."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import ways
from .description import NONE, STEM, StageKind, Types
from .stage import Stage, stage_of

ALIGNMENT = 16  # bytes, of which kernels read so many at a time


def stage_for(
    kind: StageKind,
    types: Types,
    x: Tensor,
    parameters: Sequence[Tensor],
    drops: bool,
    normed: torch.dtype | None,
) -> Stage | None:
    """The ``Stage`` by the way that is best for an input; None for plain PyTorch."""
    if any(t.data_ptr() % ALIGNMENT for t in parameters):
        return None
    strides = strides_of(kind, parameters)
    h, w = kind.out_size(*x.shape[2:])
    use = ways.Use(len(x) * h * w, w, drops, normed, torch.is_grad_enabled())
    device = x.device.index if x.is_cuda else None
    choice = ways.choose(kind, types, strides, device, use)
    if choice.plan is None:
        return None
    return stage_of(kind, types, choice.plan, strides, device)


def strides_of(kind: StageKind, parameters: Sequence[Tensor]) -> tuple[int, ...]:
    """Of the entrance's convolution weight."""
    if kind.entrance == NONE:
        return ()
    return parameters[0 if kind.entrance == STEM else 2].stride()
