"""Depthwise 7x7 convolution and its two gradients, by the fastest way to each.

Feature maps are (N, C, H, W) in the channels_last memory format, weights
(C, 1, 7, 7). What is said of speed here was measured on two cores of an AVX2
machine with oneDNN 3.13, over the four stages of ConvNeXt-T at 512 x 512.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

PADDING = 3
_STRIP = 16  # rows; 8 to 32 are within 5 % of each other


def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution: (N, C, H, W) -> (N, C, H, W)."""
    if _x86_fp32(x) == "AVX2":
        # oneDNN's input gradient is 1.5 times as fast as its convolution, and with
        # the kernel turned by half a turn it is the convolution.
        y = input_gradient(x, weight.flip(2, 3))
        return y if bias is None else y.add_(bias.view(1, -1, 1, 1))
    return F.conv2d(x, weight, bias, padding=PADDING, groups=len(weight))


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the input, from that of the output: both (N, C, H, W)."""
    return _convolution_backward(grad, grad, weight, (True, False, False))[0]


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Gradient of the weight, from the input and the output's gradient.

    oneDNN has no depthwise kernel for it in channels_last: its general one computes
    eight times what is needed. It is itself a depthwise convolution, whose kernel is
    the output's gradient: in strips that stay in cache it takes half the time, and
    its shorter sums are the more exact ones.
    """
    channels = x.shape[1]
    if not _x86_fp32(x):
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
    return total.transpose(0, 1)


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
    on_onednn = x.device.type == "cpu" and x.dtype == torch.float32
    return _vector_instructions() if on_onednn and x.numel() else ""


@cache
def _vector_instructions() -> str:
    if not torch.backends.mkldnn.is_available():
        return ""
    capability = torch.backends.cpu.get_cpu_capability()
    return capability if capability.startswith("AVX") else ""
