"""Depthwise 7x7 convolution, the norm after it, and its two gradients, on a CPU.

Feature maps are (N, C, H, W) in the channels_last memory format, weights
(C, 1, 7, 7). Each function uses the oneDNN operator that was the fastest, in fp32
(see ``working_type``). All times here were measured over the stages of ConvNeXt-T at
512 x 512 with oneDNN 3.13: on two cores of an AMD CPU with AVX2, and on an Intel CPU
with AVX-512 and AMX, also with its instructions limited by ONEDNN_MAX_CPU_ISA.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

RADIUS = 3  # of the kernel, without its centre: 7 = 2 * 3 + 1
_STRIP = 16  # rows; 8 to 32 are within 5 % of each other


def working_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which the convolution and its gradients are computed: fp32 or wider.

    Half precision gains nothing even with AMX: the input's gradient takes twice as
    long, and the weight's ten times.

    Args:
        dtype: the type of the pointwise layers' products.
    """
    return torch.promote_types(dtype, torch.float32)


def convolution_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
    dilation: int = 1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Convolve, then apply LayerNorm over the channels of each pixel.

    Args:
        x: (N, C, H, W).
        weight: the convolution's weight, (C, 1, 7, 7), in the type of ``x``.
        bias: the convolution's bias, (C), in the type of ``x``.
        scale: the norm's weight, (C).
        shift: the norm's bias, (C).
        eps: the norm adds it to each variance.
        dilation: the pixels from one element of the kernel to the next.

    Returns:
        the normed rows, (M, C) with M = N H W, in the type of ``x``; the norm's input,
        (M, C); mean and reciprocal standard deviation of its rows, (M, 1) each.
    """
    maps = convolution(x, weight, bias, dilation)
    rows = maps.permute(0, 2, 3, 1).reshape(-1, len(weight))
    # Half-precision rows with an fp32 weight would lose a third of the weight's
    # gradient.
    rows = rows.to(scale.dtype)
    normed, mean, reciprocal_std = torch.native_layer_norm(
        rows, [len(weight)], scale, shift, eps
    )
    return normed.to(x.dtype), rows, mean, reciprocal_std


def convolution(x: Tensor, weight: Tensor, bias: Tensor, dilation: int = 1) -> Tensor:
    """Convolve: (N, C, H, W) -> (N, C, H, W).

    The input's gradient, with the kernel turned by 180 degrees, is the convolution
    too. On a CPU with AVX2 and no AVX-512 it is used instead of the convolution: it
    takes two thirds of the time on AMD's, and the same time, within 5 % over all
    stages, on Intel's limited to AVX2. With AVX-512 and with SSE4.1 alone it takes 1.3
    times the convolution's time.
    """
    if _gradient_is_faster(x):
        turned = weight.flip(2, 3)
        return input_gradient(x, turned, dilation).add_(bias.view(1, -1, 1, 1))
    padding = RADIUS * dilation
    return F.conv2d(
        x, weight, bias, padding=padding, dilation=dilation, groups=len(weight)
    )


def input_gradient(grad: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    """The gradient of the input, from that of the output: both (N, C, H, W)."""
    needed = True, False, False
    return _convolution_backward(grad, grad, weight, dilation, needed)[0]


def weight_gradient(x: Tensor, grad: Tensor, dilation: int = 1) -> Tensor:
    """The gradient of the weight, (C, 1, 7, 7).

    oneDNN has no depthwise kernel for it in channels_last; its general kernel computes
    eight times what is needed. The gradient is itself a depthwise convolution of the
    input whose kernel is the output's gradient. Computed so, in strips that stay in
    cache, it takes about half of the time or less with SSE4.1, AVX2, AVX-512 and AMX;
    without oneDNN it takes the same time. The dilation becomes the stride.

    Args:
        x: the convolution's input, (N, C, H, W).
        grad: the gradient of its output, (N, C, H, W).
        dilation: the convolution's.
    """
    channels = x.shape[1]
    if x.dtype != torch.float32 or not x.numel():
        weight = x.new_empty(channels, 1, 7, 7)
        needed = False, True, False
        return _convolution_backward(grad, x, weight, dilation, needed)[1]
    total = x.new_zeros(1, channels, 7, 7)
    padding = RADIUS * dilation
    height = x.shape[2]
    for image, image_grad in zip(x.split(1), grad.split(1), strict=True):
        for top in range(0, height, _STRIP):
            bottom = min(top + _STRIP, height)
            first, last = max(top - padding, 0), min(bottom + padding, height)
            strip = image[:, :, first:last]
            if last - first < bottom - top + 2 * padding:  # at the image's edge
                above, below = first - top + padding, bottom + padding - last
                strip = F.pad(strip, (0, 0, above, below))
            kernel = image_grad[:, :, top:bottom].transpose(0, 1)
            total += F.conv2d(
                strip, kernel, stride=dilation, padding=(0, padding), groups=channels
            )
    # A transpose would have other strides than the weight; DDP wants the same.
    return total.view(channels, 1, 7, 7)


def _convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    dilation: int,
    needed: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """PyTorch's gradients of input, weight and bias, where they are ``needed``."""
    return torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        [1, 1],
        [RADIUS * dilation] * 2,
        [dilation] * 2,
        False,
        [0, 0],
        x.shape[1],
        needed,
    )


def _gradient_is_faster(x: Tensor) -> bool:
    """Whether ``convolution`` computes ``x`` by the input's gradient."""
    if x.dtype != torch.float32 or not x.numel():
        return False
    return _has_avx2_alone() and torch._C._get_mkldnn_enabled()


@cache
def _has_avx2_alone() -> bool:
    """Whether oneDNN runs here on a CPU with AVX2 and without AVX-512."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.cpu._is_avx2_supported()
        and not torch.cpu._is_avx512_supported()
    )
