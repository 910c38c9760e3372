"""RoIAlign of rotated boxes (RRoIAlign, arXiv 1812.00155, section 3.2)."""

import torch
from torch import Tensor

from . import sampling
from .precision import at_least_fp32


def roi_align_rotated_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> None:
    """Write RoIAlign of rotated boxes into ``output``.

    Shapes: input (N, C, H, W), rois (R, 6) as image, centre x, y, width, height and
    angle (radians) -> output (R, C, pooled_height, pooled_width).
    """
    size = pooled_height, pooled_width
    output.copy_(
        _pool(input, rois, size, spatial_scale, sampling_ratio, aligned, clockwise)
    )


def roi_align_rotated_backward(
    grad_output: Tensor,
    rois: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> None:
    """Write the gradient of ``roi_align_rotated_forward`` into ``grad_input``."""
    size = pooled_height, pooled_width
    maps = torch.zeros_like(grad_input, requires_grad=True)
    with torch.enable_grad():
        pooled = _pool(
            maps, rois, size, spatial_scale, sampling_ratio, aligned, clockwise
        )
    grad_input.copy_(torch.autograd.grad(pooled, maps, grad_output.to(pooled.dtype))[0])


def _pool(
    input: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> Tensor:
    """The pooled RoIs (R, C, *size), in fp32 or fp64."""
    input, rois = at_least_fp32(input, rois)
    if not len(rois):
        return input.sum() * input.new_zeros(0, input.shape[1], *size)
    centre = rois[:, [2, 1]] * spatial_scale - (0.5 if aligned else 0)  # y, x
    roi = rois[:, [4, 3]] * spatial_scale
    if not aligned:
        roi = roi.clamp(min=1)
    angle = -rois[:, 5] if clockwise else rois[:, 5]
    step = roi / roi.new_tensor(size)  # height and width of a bin
    places = sampling.bin_places(size, rois)
    samples = sampling.bin_samples(step, len(places), sampling_ratio)
    roi_of, place = samples.bin // len(places), places[samples.bin % len(places)]
    y = (place[:, 0] + samples.y) * step[roi_of, 0] - roi[roi_of, 0] / 2
    x = (place[:, 1] + samples.x) * step[roi_of, 1] - roi[roi_of, 1] / 2
    sine, cosine = angle.sin()[roi_of], angle.cos()[roi_of]
    pooled = sampling.average_in_bins(
        input,
        rois[roi_of, 0],
        y * cosine - x * sine + centre[roi_of, 0],
        y * sine + x * cosine + centre[roi_of, 1],
        samples,
    )
    return pooled.view(len(rois), *size, -1).permute(0, 3, 1, 2)
