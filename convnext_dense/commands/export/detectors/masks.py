"""Masks of instances: predicted in the frame of a box, pasted into the image."""

import torch
from torch import Tensor


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Paste masks (K, h, w) into their boxes (K, 4): (K, H, W) for ``size`` (H, W).

    A mask is interpolated bilinearly and is zero outside its own pixels, as by
    ``grid_sample``. Interpolation in y and in x are two matrix products, which take
    less memory than a grid of positions.
    """
    height, width = size
    rows = _weights(masks.shape[1], height, boxes[:, 1], boxes[:, 3])
    columns = _weights(masks.shape[2], width, boxes[:, 0], boxes[:, 2])
    return rows @ masks @ columns.transpose(1, 2)


def _weights(cells: int, pixels: int, start: Tensor, end: Tensor) -> Tensor:
    """The weight of each cell of a mask in each pixel of the image, on an axis.

    Args:
        cells: number of the mask's cells.
        pixels: number of the image's pixels.
        start: where each box begins, in pixels (K,).
        end: where it ends (K,).

    Returns:
        weights (K, pixels, cells).
    """
    pixel = torch.arange(pixels, device=start.device).to(start.dtype) + 0.5
    share = (pixel - start[:, None]) / (end - start)[:, None]
    position = share * cells - 0.5  # in cells, from the centre of the first
    cell = torch.arange(cells, device=start.device).to(start.dtype)
    return (1 - (position[..., None] - cell).abs()).clamp(min=0)
