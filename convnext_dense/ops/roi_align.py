"""RoIAlign: the mean from torchvision, the maximum in PyTorch."""

import torch
import torchvision  # noqa: F401 - registers the operators
from torch import Tensor

from . import sampling
from .precision import at_least_fp32

_ROIS_AT_A_TIME = 64  # bounds the memory of the maximum's samples
_NOWHERE = -2.0  # outside of every map


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write RoIAlign (Mask R-CNN, arXiv 1703.06870, section 3) into ``output``.

    Shapes: input (N, C, H, W), rois (R, 5) as (image, x1, y1, x2, y2) -> output
    (R, C, aligned_height, aligned_width). ``pool_mode`` 1 is the mean of a bin's
    samples, 0 the maximum; ``argmax_y`` and ``argmax_x`` then get the sample's place
    for each output. A bin without samples has the maximum zero.
    """
    size = aligned_height, aligned_width
    if pool_mode == 1 and not input.is_contiguous():
        # torchvision needs the maps contiguous: convert and copy them at once.
        wide = torch.promote_types(input.dtype, torch.float32)
        input = input.to(wide, memory_format=torch.contiguous_format)
    input, rois = at_least_fp32(input, rois)
    if pool_mode == 1:
        output.copy_(
            torch.ops.torchvision.roi_align(
                input, rois, spatial_scale, *size, sampling_ratio, aligned
            )
        )
        return
    for i in range(0, len(rois), _ROIS_AT_A_TIME):
        chunk = slice(i, i + _ROIS_AT_A_TIME)
        maxima = _maxima(
            input, rois[chunk], size, spatial_scale, sampling_ratio, aligned
        )
        for written, values in zip((output, argmax_y, argmax_x), maxima, strict=True):
            written[chunk] = values


def _maxima(
    input: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    """The maximum in each bin, and the y and x of its sample (R, C, *size)."""
    shift = 0.5 if aligned else 0
    start = rois[:, [2, 1]] * spatial_scale - shift  # y, x
    roi = rois[:, [4, 3]] * spatial_scale - shift - start
    if not aligned:
        roi = roi.clamp(min=1)
    step = roi / roi.new_tensor(size)  # height and width of a bin
    places = sampling.bin_places(size, rois)
    samples = sampling.bin_samples(step, len(places), sampling_ratio)
    roi_of, place = samples.bin // len(places), places[samples.bin % len(places)]
    y = start[roi_of, 0] + (place[:, 0] + samples.y) * step[roi_of, 0]
    x = start[roi_of, 1] + (place[:, 1] + samples.x) * step[roi_of, 1]
    values = sampling.at_points(input, rois[roi_of, 0], y, x)  # (S, C)
    bins = samples.bin[:, None].expand_as(values)
    shape = (len(rois) * len(places), input.shape[1])
    maxima = values.new_full(shape, -torch.inf).scatter_reduce(0, bins, values, "amax")
    numbers = torch.arange(len(values), device=values.device)[:, None]
    numbers = numbers.where(values == maxima[samples.bin], len(values))
    first = numbers.new_full(shape, len(values)).scatter_reduce(
        0, bins, numbers, "amin"
    )
    nowhere = y.new_full((1,), _NOWHERE)
    empty = first == len(values)
    results = (
        maxima.masked_fill(empty, 0),
        torch.cat((y, nowhere))[first],
        torch.cat((x, nowhere))[first],
    )
    return [r.view(len(rois), *size, -1).permute(0, 3, 1, 2) for r in results]


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of ``roi_align_forward`` into ``grad_input`` (N, C, H, W)."""
    grad_output, rois = at_least_fp32(grad_output, rois)
    if pool_mode == 1:
        grad_input.copy_(
            torch.ops.torchvision._roi_align_backward(
                grad_output,
                rois,
                spatial_scale,
                aligned_height,
                aligned_width,
                *grad_input.shape,
                sampling_ratio,
                aligned,
            )
        )
        return
    grads = torch.zeros(
        grad_input.shape, dtype=grad_output.dtype, device=grad_output.device
    )
    image = rois[:, 0].repeat_interleave(aligned_height * aligned_width)
    grad, y, x = (
        t.permute(0, 2, 3, 1).flatten(0, 2).to(grads.dtype)
        for t in (grad_output, argmax_y, argmax_x)
    )
    sampling.add_at_points(grads, grad, image, y, x)
    grad_input.copy_(grads)
