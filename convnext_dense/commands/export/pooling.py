"""Adaptive average pooling that can be exported with dynamic sizes.

ONNX has no such operator, and PyTorch decomposes its own only for fixed sizes.
"""

import torch
from torch import Tensor, nn


class MatrixPool2d(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products, one for each direction.

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
        """Pool (N, C, H, W) to (N, C, *output_size)."""
        height, width = x.shape[-2:]
        rows, columns = _bins(self.rows, height, x), _bins(self.columns, width, x)
        return rows @ x @ columns.T


def _bins(bins: int, size: int, like: Tensor) -> Tensor:
    """The weight of each of ``size`` positions in each bin: (bins, size).

    The bins divide the positions into intervals of equal length. A bin is the mean
    of the positions that its interval overlaps. If the size is not a multiple of the
    bins, neighbouring bins share positions.

    Args:
        bins: number of bins.
        size: number of positions: the map's height or width.
        like: tensor whose dtype and device the weights get.
    """
    # In units of 1 / bins of a position, so that all borders are whole numbers.
    interval = torch.arange(bins, device=like.device)[:, None] * size
    position = torch.arange(size, device=like.device) * bins
    overlaps = (interval < position + bins) & (position < interval + size)
    weights = overlaps.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


def replace_pools(model: nn.Module) -> None:
    """Replace each ``nn.AdaptiveAvgPool2d`` inside ``model`` by ``MatrixPool2d``."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.AdaptiveAvgPool2d:
                # mmseg's heads give numbers, never None for "the input's size".
                pool = MatrixPool2d(child.output_size)  # type: ignore[arg-type]
                setattr(parent, name, pool)
