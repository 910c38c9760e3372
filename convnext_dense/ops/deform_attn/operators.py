"""The two ops with mmcv's names and arguments, and the choice of what computes them."""

import logging

import torch
from mmengine.logging import print_log
from torch import Tensor

from convnext_dense.utils.text import reason

from . import plain


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc: Tensor,
    attn_weight: Tensor,
    im2col_step: int,
) -> Tensor:
    """The attention's output (N, Q, M D), in the type of ``value``.

    The arguments' shapes are those of the package's docstring. They may have different
    float types, and need not be contiguous. Half precision is computed in fp32.

    Args:
        im2col_step: images that the compiled op takes at a time. It changes nothing
            here, but is checked as there.

    Raises:
        RuntimeError: the batch is larger than ``im2col_step`` and no multiple of it.
    """
    _check_step(len(value), im2col_step)
    inputs = value, spatial_shapes, level_start_index, sampling_loc, attn_weight
    if _is_empty(value, sampling_loc):
        n, _, heads, channels = value.shape
        return value.new_zeros(n, sampling_loc.shape[1], heads * channels)
    out = _by_triton("forward", *inputs)
    return plain.forward(*inputs) if out is None else out


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc: Tensor,
    attn_weight: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Add the gradient of ``value`` to ``grad_value``; write those of ``sampling_loc``
    and ``attn_weight`` into the two tensors after it.

    On a GPU the gradient of ``value`` is a sum by atomic additions, in fp32. With
    ``torch.use_deterministic_algorithms(True)`` it is computed by PyTorch, in a fixed
    order.

    Raises:
        RuntimeError: as in ``ms_deform_attn_forward``.
    """
    _check_step(len(value), im2col_step)
    if _is_empty(value, sampling_loc):
        grad_sampling_loc.zero_()
        grad_attn_weight.zero_()
        return
    inputs = value, spatial_shapes, level_start_index, sampling_loc, attn_weight
    exact = torch.promote_types(grad_value.dtype, torch.float32)
    of_value = grad_value
    if grad_value.dtype != exact or not grad_value.is_contiguous():
        of_value = torch.zeros(value.shape, dtype=exact, device=value.device)
    inputs = *inputs, grad_output, of_value
    gradients = None
    if not torch.are_deterministic_algorithms_enabled():
        gradients = _by_triton("backward", *inputs)
    of_locations, of_weights = gradients or plain.backward(*inputs)
    if of_value is not grad_value:
        grad_value += of_value
    grad_sampling_loc.copy_(of_locations)
    grad_attn_weight.copy_(of_weights)


def _check_step(batch: int, step: int) -> None:
    """Raise for a batch that the compiled op refuses."""
    if step < 1 or (batch > step and batch % step):
        raise RuntimeError(
            f"deformable attention has a batch of {batch} and im2col_step={step}. A "
            "batch above im2col_step must be a multiple of it: set im2col_step of the "
            f"attention modules in the config, for example im2col_step={max(batch, 1)}"
        )


def _is_empty(value: Tensor, sampling_loc: Tensor) -> bool:
    """Whether no sample has a value."""
    return not value.numel() or not sampling_loc.numel()


_TRITON_TYPES = torch.float32, torch.float16, torch.bfloat16
_triton_works = True  # until it fails


def _triton_takes(value: Tensor) -> bool:
    """Whether there is a kernel for the device and the type of ``value``."""
    return value.is_cuda and value.dtype in _TRITON_TYPES


def _by_triton(function: str, value: Tensor, *others: Tensor):
    """What ``launches.FUNCTION`` returns; None where Triton cannot compute it.

    The first failure is logged, and Triton is not tried again in this process.
    """
    global _triton_works
    if not (_triton_works and _triton_takes(value)):
        return None
    try:
        from . import launches

        return getattr(launches, function)(value, *others)
    except torch.cuda.OutOfMemoryError:
        raise
    # Triton is missing or has no C compiler, or the GPU is too old: whatever it is,
    # PyTorch can go on.
    except Exception as error:
        _triton_works = False
        print_log(
            "Multi-scale deformable attention is computed by PyTorch, which is slower "
            f"than its Triton kernel. Triton failed: {reason(error)}",
            logger="current",
            level=logging.WARNING,
        )
        return None
