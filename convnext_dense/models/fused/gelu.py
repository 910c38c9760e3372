"""GELU in place, and its gradient with the sum that the bias before it needs."""

import torch
from torch import Tensor

_gelu = torch.ops.aten.gelu.out
_gelu_backward = torch.ops.aten.gelu_backward.grad_input


def forward(before: Tensor, out: Tensor) -> None:
    """Write GELU of ``before`` into ``out``, which may be ``before`` itself."""
    _gelu(before, out=out)


def backward_(before: Tensor, wide: Tensor, inner: Tensor) -> Tensor:
    """Compute GELU again, and its gradient.

    Args:
        before: GELU's input, (M, C).
        wide: receives GELU's output, (M, C).
        inner: the gradient of GELU's output, (M, C); becomes that of its input.

    Returns:
        the sum of the new ``inner`` over its rows, (C), in fp32 or wider: the gradient
        of the bias before GELU.
    """
    forward(before, wide)
    return gradient_(before, inner)


def gradient_(before: Tensor, inner: Tensor) -> Tensor:
    """Compute the gradient alone: ``backward_`` without GELU's output."""
    _gelu_backward(inner, before, grad_input=inner)
    return inner.sum(0, dtype=torch.promote_types(inner.dtype, torch.float32))
