"""Masked convolution: a convolution at some pixels of the output alone."""

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write the windows of M pixels into ``col``.

    Shapes: im (1, C, H, W), rows and columns of the pixels (M,) -> col
    (C * kernel_h * kernel_w, M).
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    device = im.device
    y = torch.arange(kernel_h, device=device)[:, None, None] + mask_h_idx
    x = torch.arange(kernel_w, device=device)[:, None] + mask_w_idx
    col.copy_(padded[:, y, x].view_as(col))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write ``col`` (channels, M) to M pixels of ``im`` (1, channels, height, width).

    The other pixels of ``im`` stay as they are.
    """
    im[0, :, mask_h_idx, mask_w_idx] = col
