"""Bilinear samples of feature maps, at points and averaged in the bins of RoIs.

The samples of a bin are one bag of ``embedding_bag``: four pixels and four weights for
each sample. So bins may have different numbers of samples, and no sample's channels are
kept in memory.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def corners(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four pixels around points (...), and their bilinear weights.

    A point less than a pixel outside the map has the value of the border. Others
    outside, and those that are not finite, have weight zero: this is RoIAlign's rule.

    Returns:
        indices in the flat map (..., 4) and weights (..., 4).
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y = y.where(inside, 0).clamp(0, max(height - 1, 0))
    x = x.where(inside, 0).clamp(0, max(width - 1, 0))
    top, left = y.detach().floor(), x.detach().floor()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, along = y - top, x - left
    weights = torch.stack(
        (
            (1 - down) * (1 - along),
            (1 - down) * along,
            down * (1 - along),
            down * along,
        ),
        -1,
    )
    rows, columns = (
        torch.stack(c, -1).long()
        for c in ((top, top, bottom, bottom), (left, right, left, right))
    )
    return rows * width + columns, weights * inside.unsqueeze(-1)


def bin_places(size: tuple[int, int], like: Tensor) -> Tensor:
    """Row and column of each bin of a RoI (bins, 2), in the type of ``like``."""
    axes = (torch.arange(n, device=like.device, dtype=like.dtype) for n in size)
    return torch.cartesian_prod(*axes)


class BinSamples(NamedTuple):
    """Where the samples of bins lie.

    Attributes:
        bin: the bin of each sample (S,), in rising order.
        y: each sample's place in its bin (S,), from 0 to 1.
        x: the same across.
        starts: the first sample of each bin (B,).
        counts: the number of samples of each bin (B,), at least 1.
    """

    bin: Tensor
    y: Tensor
    x: Tensor
    starts: Tensor
    counts: Tensor


def bin_samples(lengths: Tensor, bins: int, sampling_ratio: int) -> BinSamples:
    """The samples of R RoIs with ``bins`` bins each: B = R * bins.

    Args:
        lengths: height and width of a bin of each RoI (R, 2), in pixels.
        bins: the number of bins of a RoI.
        sampling_ratio: samples along each side of a bin. With 0, one for each pixel
            that has begun, and the GPU is waited for.
    """
    if sampling_ratio > 0:
        grid = torch.full_like(lengths, sampling_ratio, dtype=torch.long)
        total = len(lengths) * bins * sampling_ratio**2
    else:
        grid = lengths.nan_to_num(0).ceil().clamp(min=0).long()
        total = int(grid.prod(1).sum()) * bins
    grid = grid.repeat_interleave(bins, 0, output_size=len(lengths) * bins)
    counts = grid.prod(1)
    bin = torch.arange(len(counts), device=counts.device)
    bin = bin.repeat_interleave(counts, output_size=total)
    starts = counts.cumsum(0) - counts
    rank = torch.arange(total, device=counts.device) - starts[bin]
    rows, columns = grid[bin].unbind(1)
    y = (rank // columns + 0.5).to(lengths.dtype) / rows
    x = (rank % columns + 0.5).to(lengths.dtype) / columns
    return BinSamples(bin, y, x, starts, counts.clamp(min=1))


def average_in_bins(
    maps: Tensor, image: Tensor, y: Tensor, x: Tensor, samples: BinSamples
) -> Tensor:
    """The mean of each bin's samples. Differentiable in ``maps``, ``y`` and ``x``.

    Shapes: maps (N, C, H, W); image, y and x of each sample (S,) -> (B, C).
    """
    pixels, weights = _corners_in_batch(maps, image, y, x)
    weights = weights / samples.counts[samples.bin].unsqueeze(1)
    return F.embedding_bag(
        pixels.flatten(),
        _table(maps),
        4 * samples.starts,
        mode="sum",
        per_sample_weights=weights.flatten(),
    )


def at_points(maps: Tensor, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Maps (N, C, H, W) at points, given by image, y and x (S,) -> (S, C)."""
    pixels, weights = _corners_in_batch(maps, image, y, x)
    return F.embedding_bag(pixels, _table(maps), mode="sum", per_sample_weights=weights)


def add_at_points(
    grad_maps: Tensor, grad: Tensor, image: Tensor, y: Tensor, x: Tensor
) -> None:
    """Add the gradient of ``at_points`` to ``grad_maps`` (N, C, H, W), contiguous.

    Each channel has its own points: image (S,), y and x (S, C) for ``grad`` (S, C).
    """
    channels, height, width = grad_maps.shape[1:]
    pixels, weights = corners(y, x, height, width)
    plane = image.long()[:, None] * channels + torch.arange(
        channels, device=grad.device
    )
    pixels = pixels + (plane * (height * width)).unsqueeze(-1)
    weighted = weights * grad.unsqueeze(-1)
    grad_maps.view(-1).index_add_(0, pixels.flatten(), weighted.flatten())


def _corners_in_batch(
    maps: Tensor, image: Tensor, y: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """``corners`` with indices in all maps (N, C, H, W) at once."""
    height, width = maps.shape[2:]
    pixels, weights = corners(y, x, height, width)
    return pixels + (image.long() * (height * width)).unsqueeze(1), weights


def _table(maps: Tensor) -> Tensor:
    """The pixels of maps as rows of channels (N * H * W, C)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
