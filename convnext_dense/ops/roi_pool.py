"""RoI pooling, from torchvision."""

import torch
import torchvision  # noqa: F401 - registers the operators
from torch import Tensor

from .precision import at_least_fp32


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write RoI pooling (Fast R-CNN, arXiv 1504.08083, section 2.1) into ``output``.

    Shapes: input (N, C, H, W), rois (R, 5) as (image, x1, y1, x2, y2) -> output
    (R, C, pooled_height, pooled_width). ``argmax`` gets the index of each maximum in
    its image's map (H * W), and -1 where a bin has no pixel or a RoI no area: the
    output is zero there. mmcv rounds the edges of bins, torchvision those of RoIs, so
    torchvision pools each bin as a RoI.
    """
    input, rois = at_least_fp32(input, rois)
    height, width = input.shape[2:]
    x = _edges(rois[:, 1], rois[:, 3], pooled_width, spatial_scale, width)
    y = _edges(rois[:, 2], rois[:, 4], pooled_height, spatial_scale, height)
    image = rois[:, :1, None].expand(-1, pooled_height, pooled_width)
    x1, x2 = (edge[:, None].expand_as(image) for edge in x)
    y1, y2 = (edge[:, :, None].expand_as(image) for edge in y)
    bins = torch.stack((image, x1, y1, x2 - 1, y2 - 1), -1).view(-1, 5)
    maxima, index = torch.ops.torchvision.roi_pool(input, bins, 1.0, 1, 1)
    empty = ((x2 <= x1) | (y2 <= y1)).unsqueeze(1)
    shape = (len(rois), pooled_height, pooled_width, input.shape[1])
    output.copy_(maxima.view(shape).permute(0, 3, 1, 2).masked_fill(empty, 0))
    argmax.copy_(index.view(shape).permute(0, 3, 1, 2).masked_fill(empty, -1))


def _edges(
    start: Tensor, end: Tensor, bins: int, scale: float, size: int
) -> tuple[Tensor, Tensor]:
    """First pixel of each bin and the one after its last (R, bins), along an axis."""
    start, end = start * scale, (end + 1) * scale
    length = (end - start)[:, None]
    steps = torch.arange(bins + 1, device=start.device)
    at = steps * (length / bins) + start[:, None]
    first = at[:, :-1].floor().clamp(0, size)
    after = at[:, 1:].ceil().clamp(0, size)
    return first, torch.where(length > 0, after, first)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the gradient of ``roi_pool_forward`` into ``grad_input`` (N, C, H, W)."""
    grad_output, rois = at_least_fp32(grad_output, rois)
    grad_input.copy_(
        torch.ops.torchvision._roi_pool_backward(
            grad_output,
            rois,
            argmax,
            spatial_scale,
            pooled_height,
            pooled_width,
            *grad_input.shape,
        )
    )
