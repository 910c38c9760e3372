"""Depthwise 7x7 convolution, the norm after it, and its two gradients, on a CPU.

Feature maps are (N, C, H, W) in the channels_last memory format, weights
(C, 1, 7, 7). Each is computed by what oneDNN does best: in fp32 (see
``working_type``). What is said of speed here was measured on two cores, with AVX2 and
with AVX-512 and AMX, with oneDNN 3.13, over the stages of ConvNeXt-T at 512 x 512.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

PADDING = 3
_STRIP = 16  # rows; 8 to 32 are within 5 % of each other


def working_type(dtype: torch.dtype) -> torch.dtype:
    """The type to compute the convolution and its gradients in: at least fp32.

    Half precision gains nothing even with AMX: the input's gradient takes twice as
    long, and the weight's ten times.

    Args:
        dtype: of the products beside it.
    """
    return torch.promote_types(dtype, torch.float32)


def convolution_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The convolution, and LayerNorm over the channels of each pixel after it.

    Args:
        x: (N, C, H, W).
        weight: of the convolution, (C, 1, 7, 7), in the type of ``x``; ``bias``, (C).
        scale: the norm's weight, (C), ``shift`` its bias, ``eps`` what it adds to a
            variance.

    Returns:
        the normed rows (M, C) in the type of ``x``; the norm's input (M, C); mean
        and reciprocal standard deviation of its rows, (M, 1).
    """
    rows = convolution(x, weight, bias).permute(0, 2, 3, 1).reshape(-1, len(weight))
    # Not half-precision rows with an fp32 weight: that loses a third of the weight's
    # gradient.
    rows = rows.to(scale.dtype)
    normed, *statistics = torch.native_layer_norm(
        rows, [len(weight)], scale, shift, eps
    )
    return normed.to(x.dtype), rows, *statistics


def convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution: (N, C, H, W) -> (N, C, H, W)."""
    if _x86_fp32(x) == "AVX2":
        # oneDNN's input gradient is 1.5 times as fast as its convolution, and with
        # the kernel turned by half a turn it is the convolution.
        return input_gradient(x, weight.flip(2, 3)).add_(bias.view(1, -1, 1, 1))
    return F.conv2d(x, weight, bias, padding=PADDING, groups=len(weight))


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the input, from that of the output: both (N, C, H, W)."""
    return _convolution_backward(grad, grad, weight, (True, False, False))[0]


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Gradient of the weight, (C, 1, 7, 7), from the input and that of the output."""
    # oneDNN has no depthwise kernel for this in channels_last: its general one
    # computes eight times what is needed. It is itself a depthwise convolution, whose
    # kernel is the output's gradient: in strips that stay in cache it takes half the
    # time or less, with SSE4.1, AVX2 and AVX-512; without oneDNN, the same.
    channels = x.shape[1]
    if x.dtype != torch.float32 or not x.numel():
        weight = x.new_empty(channels, 1, 7, 7)
        return _convolution_backward(grad, x, weight, (False, True, False))[1]
    total = x.new_zeros(1, channels, 7, 7)
    height = x.shape[2]
    for image, image_grad in zip(x.split(1), grad.split(1), strict=True):
        for top in range(0, height, _STRIP):
            bottom = min(top + _STRIP, height)
            first, last = max(top - PADDING, 0), min(bottom + PADDING, height)
            strip = image[:, :, first:last]
            if last - first < bottom - top + 2 * PADDING:  # at the image's edge
                above, below = first - top + PADDING, bottom + PADDING - last
                strip = F.pad(strip, (0, 0, above, below))
            kernel = image_grad[:, :, top:bottom].transpose(0, 1)
            total += F.conv2d(strip, kernel, padding=(0, PADDING), groups=channels)
    # Not a transpose, whose strides DDP would not find to be the weight's.
    return total.view(channels, 1, 7, 7)


def _convolution_backward(grad, x, weight, wanted):
    return torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        [1, 1],
        [PADDING, PADDING],
        [1, 1],
        False,
        [0, 0],
        x.shape[1],
        wanted,
    )


def _x86_fp32(x: Tensor) -> str:
    """The CPU's vector instructions where oneDNN computes ``x``, else nothing."""
    if x.dtype != torch.float32 or not x.numel():
        return ""
    return _vector_instructions() if torch._C._get_mkldnn_enabled() else ""


@cache
def _vector_instructions() -> str:
    if not torch.backends.mkldnn.is_available():
        return ""
    capability = torch.backends.cpu.get_cpu_capability()
    return capability if capability.startswith("AVX") else ""
