"""Output stride: stages that are dilated instead of halving the resolution.

The rule and the convolutions are those of timm (models/convnext.py, ``ConvNeXt`` and
``ConvNeXtStage``), so both libraries compute the same with the same weights.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from convnext_dense.errors import InputError

from .archs import NUM_STAGES
from .fused import PatchConv2d

OUTPUT_STRIDES = 8, 16, 32


def strides_and_dilations(output_stride: int) -> tuple[list[int], list[int]]:
    """The stride of each stage's map, and the dilation of its depthwise convolutions.

    The dilation makes up for the strides that are left out: a kernel spans as many
    pixels of the image as before.

    >>> from convnext_dense.models.output_stride import strides_and_dilations
    >>> strides_and_dilations(8)
    ([4, 8, 8, 8], [1, 1, 2, 4])

    Args:
        output_stride: the stride of the last stage's map, 8, 16 or 32.

    Raises:
        InputError: (a ValueError) ``output_stride`` has another value.
    """
    if type(output_stride) is not int or output_stride not in OUTPUT_STRIDES:
        raise InputError(
            f"output_stride={output_stride!r} of ConvNeXt: give 8, 16 or 32. It is the "
            "stride of the last stage's map"
        )
    usual = [4 * 2**stage for stage in range(NUM_STAGES)]
    strides = [min(stride, output_stride) for stride in usual]
    return strides, [u // stride for u, stride in zip(usual, strides, strict=True)]


def downsample_conv(before: int, after: int, dilation: int) -> nn.Conv2d:
    """The convolution in a stage's downsample layer.

    Args:
        before: channels of the stage before.
        after: channels of the stage.
        dilation: of the stage's depthwise convolutions. 1: the layer halves the
            resolution. Otherwise it keeps the resolution, and has the dilation of the
            stage before.
    """
    if dilation == 1:
        return PatchConv2d(before, after, 2)
    return SameSizeConv2d(before, after, dilation // 2)


class SameSizeConv2d(nn.Conv2d):
    """A 2x2 convolution with stride 1 that keeps the map's size.

    It pads by ``dilation`` rows and columns in all. With an odd number one more is
    below and to the right, as in TensorFlow's padding "same". PyTorch's has the same
    values, but warns of the copy.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        dilation: the pixels from one element of the kernel to the next.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int):
        padding = dilation // 2
        super().__init__(in_channels, out_channels, 2, 1, padding, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``, (N, in_channels, H, W)."""
        if self.dilation[0] % 2:
            x = F.pad(x, (0, 1, 0, 1))
        return super().forward(x)
