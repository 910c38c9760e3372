"""RoIAlign, from torchvision."""

import torch
import torchvision  # noqa: F401 - registers the operators
from torch import Tensor


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
    (R, C, aligned_height, aligned_width). Half precision is computed in fp32.

    Raises:
        NotImplementedError: ``pool_mode`` is 0, which means the maximum.
    """
    if pool_mode != 1:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' has no stand-in in convnext_dense. Use "
            "pool_mode='avg', as all configs of the toolboxes do, or install an mmcv "
            "with compiled ops"
        )
    exact = torch.promote_types(input.dtype, torch.float32)
    output.copy_(
        torch.ops.torchvision.roi_align(
            input.to(exact),
            rois.to(exact),
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
    )


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
    exact = torch.promote_types(grad_output.dtype, torch.float32)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output.to(exact),
            rois.to(exact),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )
