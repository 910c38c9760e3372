"""A stage in plain PyTorch, from its parameters: the kernels must give the same."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .description import DOWNSAMPLE, STEM, StageKind
from .kernels.grn import EPS as GRN_EPS


def run(
    kind: StageKind, x: Tensor, parameters: Sequence[Tensor], drop: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The stream and the normed map, or None: what ``Stage.forward`` gives."""
    left = list(parameters)
    own = [left.pop(0) for _ in range(kind.entrance_parameters)]
    if kind.entrance == STEM:
        x = _norm(F.conv2d(x, own[0], own[1], stride=4), own[2], own[3], kind.eps)
    elif kind.entrance == DOWNSAMPLE:
        x = F.conv2d(_norm(x, own[0], own[1], kind.eps), own[2], own[3], stride=2)
    for block in range(kind.blocks):
        own = [left.pop(0) for _ in range(kind.block_parameters)]
        branch = _branch(kind, x, own)
        if drop is not None:
            branch = branch * drop[block][:, None, None, None].to(branch.dtype)
        x = x + branch
    return x, _norm(x, *left, kind.eps) if kind.norm else None


def _norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    rows = F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, eps)
    return rows.permute(0, 3, 1, 2)


def _branch(kind: StageKind, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    dw, dw_bias, norm_weight, norm_bias, w1, b1, w2, b2 = parameters[:8]
    y = F.conv2d(x, dw, dw_bias, padding=3, groups=kind.channels)
    y = _norm(y, norm_weight, norm_bias, kind.eps).permute(0, 2, 3, 1)
    y = F.gelu(F.linear(y, w1, b1))
    if kind.grn:
        gamma, beta = parameters[-2:]
        strength = torch.linalg.vector_norm(y, dim=(1, 2), keepdim=True)
        response = strength / (strength.mean(-1, keepdim=True) + GRN_EPS)
        y = y * (1 + gamma * response) + beta
    y = F.linear(y.to(w2.dtype) if y.dtype != w2.dtype else y, w2, b2)
    if kind.layer_scale:
        y = parameters[8] * y
    return y.permute(0, 3, 1, 2)


def random_parameters(
    kind: StageKind,
    dtype: torch.dtype,
    device: torch.device,
    strides: tuple[int, ...] = (),
) -> list[Tensor]:
    """Parameters far from neutral, so that whatever is forgotten shows."""
    generator = torch.Generator(device).manual_seed(0)
    parameters = []
    for shape in kind.shapes:
        fan = max(1, torch.Size(shape[1:]).numel())
        value = torch.randn(shape, generator=generator, device=device) / fan**0.5
        if len(shape) == 1:
            value = 0.5 + 0.5 * value
        value = value.to(dtype)
        if len(shape) == 4 and shape[1] > 1 and tuple(value.stride()) != strides:
            value = value.contiguous(memory_format=torch.channels_last)
        parameters.append(value.requires_grad_())
    return parameters
