"""Convolution of non-overlapping patches as a matrix product."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..tracing import RECENT, is_compiling, is_symbolic
from .precision import precision_of


class PatchConv2d(nn.Conv2d):
    """A convolution whose stride equals its kernel size.

    The stem and the downsample layers use it. On a CPU each patch becomes a row of
    a matrix: the gradients then take two thirds of the time that oneDNN's convolution
    takes. Rows and columns that fill no patch are left out, as in ``nn.Conv2d``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        size: side of a patch in pixels: the kernel size and the stride.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H // size, W // size).
    """

    bias: nn.Parameter  # never None

    def __init__(self, in_channels: int, out_channels: int, size: int):
        super().__init__(in_channels, out_channels, kernel_size=size, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``, (N, in_channels, H, W)."""
        if not RECENT or _is_traced(x) or x.device.type != "cpu":
            return super().forward(x)
        size = self.kernel_size[0]
        n, channels, height, width = (
            d // s for d, s in zip(x.shape, (1, 1, size, size), strict=True)
        )
        kept, work = precision_of(x)
        x = x[:, :, : height * size, : width * size]
        patches = x.permute(0, 2, 3, 1).reshape(n, height, size, width, size, channels)
        length = size * size * channels  # not -1: a batch may have no image
        rows = patches.transpose(2, 3).reshape(n, height, width, length).to(work)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        with torch.autocast("cpu", enabled=False):
            y = F.linear(rows, weight.to(work), self.bias.to(work))
        return y.to(kept).permute(0, 3, 1, 2)


def _is_traced(x: Tensor) -> bool:
    """Whether a tracer or a compiler records the operators."""
    return is_symbolic(x) or torch.jit.is_tracing() or is_compiling()
