"""The stand-ins for mmcv's compiled ops, from torchvision.

Each function has the name and the arguments of the compiled op. ``mmcv_ops`` serves
them as the module ``mmcv._ext``, and imports this module only then: importing
torchvision takes more than a second.
"""

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Non-maximum suppression: the indices of the kept boxes, best score first.

    Shapes: boxes (N, 4) as x1, y1, x2, y2 in pixels, scores (N,) -> (K,). With
    ``offset`` 1 a box includes its last pixel, as boxes of mmdet 1 did.
    """
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes.float(), scores.float(), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., arXiv 1704.04503, figure 2).

    An overlapping box's score is multiplied by zero (``method`` 0), by one minus
    the IoU (1), or by a Gaussian of the IoU with variance ``sigma`` (2). Boxes whose
    score falls below ``min_score`` are dropped.

    Writes boxes and new scores, best first, into ``dets`` (N, 5).

    Returns:
        the indices of the kept boxes (K,).
    """
    rest, scores = torch.arange(len(boxes)), scores.clone()
    kept: list[Tensor] = []
    while len(rest):
        position = int(scores[rest].argmax())
        best = rest[position]
        rest = torch.cat((rest[:position], rest[position + 1 :]))
        dets[len(kept)] = torch.cat((boxes[best], scores[best : best + 1]))
        kept.append(best)
        iou = _iou(boxes[best], boxes[rest], offset)
        if method == 0:
            weight = (iou < iou_threshold).to(iou.dtype)
        elif method == 1:
            weight = torch.where(iou >= iou_threshold, 1 - iou, 1)
        else:
            weight = torch.exp(-(iou**2) / sigma)
        scores[rest] *= weight
        rest = rest[scores[rest] >= min_score]
    return torch.stack(kept) if kept else rest


def _iou(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
    """IoU of one box (4,) with each of ``boxes`` (N, 4) -> (N,)."""
    lower = torch.maximum(box[:2], boxes[:, :2])
    upper = torch.minimum(box[2:], boxes[:, 2:])
    overlap = (upper - lower + offset).clamp(min=0).prod(-1)
    area, areas = ((b[..., 2:] - b[..., :2] + offset).prod(-1) for b in (box, boxes))
    return overlap / (area + areas - overlap)


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


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the focal loss (arXiv 1708.02002, equation 5) into ``output``.

    Shapes: logits (N, C), classes (N,) where class C is the background -> (N, C).
    mmdet calls this op on a GPU only, and never with class weights.

    Raises:
        NotImplementedError: there are class weights.
    """
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the gradient of each loss with respect to its logit into ``grad_input``
    (N, C)."""
    with torch.enable_grad():
        logits = input.detach().requires_grad_()
        loss = _focal_loss(logits, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, logits)[0])


def _focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    """The focal loss of each logit (N, C), in fp32."""
    if weight.numel():
        raise NotImplementedError(
            "mmcv's sigmoid_focal_loss with class weights has no stand-in in "
            "convnext_dense. Leave out the weights, or install an mmcv with compiled "
            "ops"
        )
    classes = logits.shape[1]
    truth = F.one_hot(target, classes + 1)[:, :classes]
    return sigmoid_focal_loss(logits.float(), truth.float(), alpha, gamma)


def get_compiler_version() -> str:
    """What the toolboxes' environment report says of the compiler."""
    return "none (stand-ins of convnext_dense)"


def get_compiling_cuda_version() -> str:
    """What the toolboxes' environment report says of CUDA."""
    return "none (stand-ins of convnext_dense)"


STAND_INS = (
    nms,
    softnms,
    roi_align_forward,
    roi_align_backward,
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    get_compiler_version,
    get_compiling_cuda_version,
)
