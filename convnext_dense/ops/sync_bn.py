"""Batch normalisation across processes (mmcv's ``MMSyncBN``).

mmcv sums between the calls over the processes. Shapes: maps (N, C, S) with S pixels,
statistics and parameters (C,) in fp32.
"""

import torch
from torch import Tensor


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Write the mean of each channel into ``mean``."""
    mean.copy_(input.float().mean((0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Write the mean squared distance to ``mean`` of each channel into ``var``."""
    var.copy_((input.float() - mean[:, None]).square().mean((0, 2)))


def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: Tensor,
    group_size: int,
) -> None:
    """Write the normalised maps into ``norm``, with weight and bias into ``output``.

    ``std`` gets the standard deviations, and ``running_mean`` and ``running_var`` move
    towards ``mean`` and the unbiased variance by ``momentum`` (1,). ``group_size``: the
    number of processes.
    """
    std.copy_((var + eps).sqrt())
    torch.div(input.float() - mean[:, None], std[:, None], out=norm)
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * group_size
    unbiased = var * count / (count - 1) if count > 1 else var
    for running, new in ((running_mean, mean), (running_var, unbiased)):
        running.copy_(momentum * new + (1 - momentum) * running)


def sync_bn_backward_param(
    grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> None:
    """Write the gradients of weight and bias into ``grad_weight``, ``grad_bias``."""
    grad_weight.copy_((grad_output.float() * norm).sum((0, 2)))
    grad_bias.copy_(grad_output.float().sum((0, 2)))


def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Write the gradient of the input into ``grad_input``.

    ``grad_weight`` and ``grad_bias`` are the means over the processes.
    """
    count = max(grad_output.shape[0] * grad_output.shape[2], 1)
    means = (grad_weight[:, None] * norm + grad_bias[:, None]) / count
    scale = weight[:, None] / std[:, None]
    grad_input.copy_(scale * (grad_output.float() - means))
