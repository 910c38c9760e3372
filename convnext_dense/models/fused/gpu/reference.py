"""A stage in plain PyTorch, computed from its parameters: the truth for the kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .description import DOWNSAMPLE, STEM, StageSpec
from .kernels.grn import EPS as GRN_EPS


def run(
    spec: StageSpec, x: Tensor, parameters: Sequence[Tensor], drop: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Compute a stage.

    Args:
        spec: the stage.
        x: its input, (N, before, H, W).
        parameters: in the order of ``StageSpec``.
        drop: the drop path factors, (blocks, N), or None.

    Returns:
        The residual stream, and the normed map or None, as ``Stage.forward`` does.
    """
    left = list(parameters)
    first = [left.pop(0) for _ in range(spec.entrance_parameters)]
    if spec.entrance == STEM:
        weight, bias, norm_weight, norm_bias = first
        x = F.conv2d(x, weight, bias, stride=4)
        x = _norm(x, norm_weight, norm_bias, spec.eps)
    elif spec.entrance == DOWNSAMPLE:
        norm_weight, norm_bias, weight, bias = first
        x = _norm(x, norm_weight, norm_bias, spec.eps)
        x = F.conv2d(x, weight, bias, stride=2)
    for block in range(spec.blocks):
        branch = _branch(spec, x, [left.pop(0) for _ in range(spec.block_parameters)])
        if drop is not None:
            branch = branch * drop[block][:, None, None, None].to(branch.dtype)
        x = x + branch
    if not spec.norm:
        return x, None
    norm_weight, norm_bias = left
    return x, _norm(x, norm_weight, norm_bias, spec.eps)


def _norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the channels of (N, C, H, W)."""
    rows = F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, eps)
    return rows.permute(0, 3, 1, 2)


def _branch(spec: StageSpec, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The residual branch of a block, without drop path."""
    dw, dw_bias, norm_weight, norm_bias, w1, b1, w2, b2 = parameters[:8]
    y = F.conv2d(x, dw, dw_bias, padding=3, groups=spec.channels)
    y = _norm(y, norm_weight, norm_bias, spec.eps).permute(0, 2, 3, 1)
    y = F.gelu(F.linear(y, w1, b1))
    if spec.grn:
        gamma, beta = parameters[-2:]
        strength = torch.linalg.vector_norm(y, dim=(1, 2), keepdim=True)
        response = strength / (strength.mean(-1, keepdim=True) + GRN_EPS)
        y = y * (1 + gamma * response) + beta
    y = F.linear(y.to(w2.dtype) if y.dtype != w2.dtype else y, w2, b2)
    if spec.layer_scale:
        y = parameters[8] * y
    return y.permute(0, 3, 1, 2)


def random_parameters(
    spec: StageSpec,
    dtype: torch.dtype,
    device: torch.device,
    strides: tuple[int, ...] = (),
) -> list[Tensor]:
    """Random parameters, none near 0 or 1: a kernel that leaves one out gives an error.

    ``strides`` are those of the entrance's convolution weight.
    """
    generator = torch.Generator(device).manual_seed(0)
    parameters = []
    for shape in spec.shapes:
        fan = max(1, torch.Size(shape[1:]).numel())
        value = torch.randn(shape, generator=generator, device=device) / fan**0.5
        if len(shape) == 1:
            value = 0.5 + 0.5 * value
        value = value.to(dtype)
        if len(shape) == 4 and shape[1] > 1 and tuple(value.stride()) != strides:
            value = value.contiguous(memory_format=torch.channels_last)
        parameters.append(value.requires_grad_())
    return parameters
