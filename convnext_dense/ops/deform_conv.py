"""Deformable convolution, versions 1 and 2, from torchvision.

Shapes, for N images, a kernel of K = kernel height x kernel width points, G = ``group``
groups of channels and D = ``deformable_group`` groups of offsets:

    input   (N, C, H, W)
    weight  (O, C / G, kernel height, kernel width)
    offset  (N, 2 D K, H', W'), as y and x of each point in turn, in pixels
    mask    (N, D K, H', W'), version 2 alone
    output  (N, O, H', W')

mmdet's DyHead (arXiv 2106.08322) gives version 2 the offsets and masks of a larger map.
mmcv's op then reads as many numbers as it needs from the start of each image's
(``modulated_deformable_im2col``), and so does this one.

The columns that torchvision computes on the way are freed within the call.
"""

import weakref

import torch
import torchvision  # noqa: F401 - registers the operators
from torch import Tensor

from .precision import at_least_fp32

_GRAD_WEIGHT = "grad_weight_and_its_grad_output"


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write version 1 (arXiv 1703.06211, equation 2) into ``output``.

    ``dH``, ``dW`` are the strides. ``columns``, ``ones`` and ``im2col_step`` have no
    use here.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_forward(input, weight, offset, None, None, geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write version 1's gradients of input and offset into ``gradInput`` and
    ``gradOffset``.

    torchvision computes all gradients at once. The weight's waits at ``columns``,
    which mmcv also gives to ``deform_conv_backward_parameters``.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    grads = _backward(gradOutput, input, weight, offset, None, geometry)
    gradInput.copy_(grads[0])
    gradOffset.copy_(grads[2])
    vars(columns)[_GRAD_WEIGHT] = grads[1], weakref.ref(gradOutput)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add version 1's gradient of the weight, times ``scale``, to ``gradWeight``."""
    grad, of = vars(columns).pop(_GRAD_WEIGHT, (None, lambda: None))
    if of() is not gradOutput:  # frozen input and offset: nothing waits for this call
        geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
        weight = torch.zeros_like(gradWeight)  # its own gradient does not need it
        grad = _backward(gradOutput, input, weight, offset, None, geometry)[1]
    gradWeight.add_(grad, alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write version 2 (arXiv 1811.11168, equation 1) into ``output``.

    ``bias`` is (O,) if ``with_bias``. ``ones`` and ``columns`` have no use here.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w)
    output.copy_(
        _forward(
            input,
            weight,
            _leading(offset, output),
            _leading(mask, output),
            bias if with_bias else None,
            (*geometry, group, deformable_group),
        )
    )


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write version 2's gradients into the tensors named ``grad_*``."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w)
    grads = _backward(
        grad_output,
        input,
        weight,
        _leading(offset, grad_output),
        _leading(mask, grad_output),
        (*geometry, group, deformable_group),
    )
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    for written, grad in ((grad_offset, grads[2]), (grad_mask, grads[3])):
        whole = torch.zeros_like(written, memory_format=torch.contiguous_format)
        _leading(whole, grad_output).copy_(grad)
        written.copy_(whole)
    if with_bias:
        grad_bias.copy_(grads[4])


def _leading(values: Tensor, output: Tensor) -> Tensor:
    """The first numbers of each image's ``values``, as a map of ``output``'s size."""
    size = output.shape[2:]
    if values.shape[2:] == size or values.shape[2:].numel() < size.numel():
        return values
    leading = values.flatten(1)[:, : values.shape[1] * size.numel()]
    return leading.view(*values.shape[:2], *size)


def _forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: tuple[int, ...],
) -> Tensor:
    """The convolution. ``geometry``: strides, paddings, dilations and groups."""
    input, weight, offset, mask, bias = _operands(input, weight, offset, mask, bias)
    return torch.ops.torchvision.deform_conv2d(
        input, weight, offset, mask, bias, *geometry, mask.numel() > 0
    )


def _backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    geometry: tuple[int, ...],
) -> tuple[Tensor, ...]:
    """The gradients of input, weight, offset, mask and bias."""
    input, weight, offset, mask, bias = _operands(input, weight, offset, mask, None)
    return torch.ops.torchvision._deform_conv2d_backward(
        grad_output.to(input.dtype),
        input,
        weight,
        offset,
        mask,
        bias,
        *geometry,
        mask.numel() > 0,
    )


def _operands(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
) -> list[Tensor]:
    """What torchvision takes: one type, an empty mask for none, a bias of zeros."""
    mask = input.new_zeros(len(input), 0, 0, 0) if mask is None else mask
    bias = input.new_zeros(len(weight)) if bias is None else bias
    return at_least_fp32(input, weight, offset, mask, bias)
