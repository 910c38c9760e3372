"""Deformable RoI pooling: RoIAlign whose bins move."""

import torch
from torch import Tensor

from . import sampling
from .precision import at_least_fp32


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write deformable RoI pooling (arXiv 1703.06211, equation 5) into ``output``.

    Shapes: input (N, C, H, W), rois (R, 5) as (image, x1, y1, x2, y2), offset
    (R, 2, pooled_height, pooled_width) as x and y in parts of the RoI's size times
    ``gamma``, or empty -> output (R, C, pooled_height, pooled_width). The samples of a
    bin are averaged as by RoIAlign.
    """
    size = pooled_height, pooled_width
    pooled = _pool(input, rois, offset, size, spatial_scale, sampling_ratio, gamma)
    output.copy_(pooled)


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write the gradients of input and offset into ``grad_input``, ``grad_offset``.

    For samples beyond the outermost pixels' centres the compiled op extrapolates the
    offset's gradient. This is the gradient of the forward pass, there too.
    """
    size = pooled_height, pooled_width
    with torch.enable_grad():
        input, offset = (t.detach().requires_grad_() for t in (input, offset))
        pooled = _pool(input, rois, offset, size, spatial_scale, sampling_ratio, gamma)
    grads = torch.autograd.grad(
        pooled, (input, offset), grad_output.to(pooled.dtype), materialize_grads=True
    )
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[1])


def _pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    """The pooled RoIs (R, C, *size), in fp32 or fp64."""
    input, rois, offset = at_least_fp32(input, rois, offset)
    if not len(rois):
        return (input.sum() + offset.sum()) * input.new_zeros(0, input.shape[1], *size)
    start = rois[:, [2, 1]] * spatial_scale - 0.5  # y, x
    roi = rois[:, [4, 3]] * spatial_scale - 0.5 - start
    step = roi / roi.new_tensor(size)  # height and width of a bin
    places = sampling.bin_places(size, rois)
    corner = start[:, None] + places * step[:, None]  # (R, bins, 2)
    if offset.numel():
        moved = offset.flatten(2).flip(1).mT  # (R, bins, 2) as y, x
        corner = corner + gamma * roi[:, None] * moved
    samples = sampling.bin_samples(step, len(places), sampling_ratio)
    at = corner.flatten(0, 1)[samples.bin]
    roi_of = samples.bin // len(places)
    y = at[:, 0] + samples.y * step[roi_of, 0]
    x = at[:, 1] + samples.x * step[roi_of, 1]
    pooled = sampling.average_in_bins(input, rois[roi_of, 0], y, x, samples)
    return pooled.view(len(rois), *size, -1).permute(0, 3, 1, 2)
