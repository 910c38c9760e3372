"""Convolution of patches side by side, as a product of matrices."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .precision import RECENT, precision_of


class PatchConv2d(nn.Conv2d):
    """A convolution whose stride is its kernel's size: the stem, the downsampling.

    On a CPU each patch is made a row of a matrix, which makes the gradients a third
    faster than oneDNN's of the convolution. Rows and columns that fill no patch are
    left out, as a convolution leaves them.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H // size, W // size).
    """

    def __init__(self, in_channels: int, out_channels: int, size: int):
        super().__init__(in_channels, out_channels, kernel_size=size, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        if not RECENT or x.device.type != "cpu" or _looked_into():
            return super().forward(x)
        size = self.kernel_size[0]
        n, channels, height, width = (
            d // s for d, s in zip(x.shape, (1, 1, size, size), strict=True)
        )
        kept, work = precision_of(x)
        x = x[:, :, : height * size, : width * size]
        patches = x.permute(0, 2, 3, 1).reshape(n, height, size, width, size, channels)
        width_of_row = size * size * channels  # not -1: there may be no image
        rows = patches.transpose(2, 3).reshape(n, height, width, width_of_row).to(work)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        with torch.autocast("cpu", enabled=False):
            y = F.linear(rows, weight.to(work), self.bias.to(work))
        return y.to(kept).permute(0, 3, 1, 2)


def _looked_into() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_compiling()
