"""Adaptive average pooling for maps whose size is not known yet.

ONNX has no such operator, and PyTorch takes it apart only for sizes that are numbers.
"""

import torch
from torch import Tensor, nn


class MatrixPool2d(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products, one a direction.

    Args:
        output_size: rows and columns of the output, or one number for both.

    Shapes: (N, C, H, W) -> (N, C, *output_size).
    """

    def __init__(self, output_size: int | tuple[int, int]):
        super().__init__()
        if isinstance(output_size, int):
            output_size = (output_size, output_size)
        self.rows, self.columns = output_size

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        rows, columns = _bins(self.rows, height, x), _bins(self.columns, width, x)
        return rows @ x @ columns.T


def _bins(bins: int, size: int, like: Tensor) -> Tensor:
    """What each of ``size`` positions gives to each bin: (bins, size).

    The size is cut into equal parts; a bin is the mean of all positions that its
    part touches, so that neighbours share one where the size does not divide.
    """
    part = torch.arange(bins, device=like.device)[:, None] * size
    position = torch.arange(size, device=like.device) * bins
    touched = (part < position + bins) & (position < part + size)
    weights = touched.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


def replace_pools(model: nn.Module) -> None:
    """Put ``MatrixPool2d`` in place of each adaptive average pooling of ``model``."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.AdaptiveAvgPool2d:
                setattr(parent, name, MatrixPool2d(child.output_size))
