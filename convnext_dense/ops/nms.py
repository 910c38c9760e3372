"""Non-maximum suppression of boxes."""

import torch
import torchvision
from torch import Tensor


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


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """NMS that keeps the groups (Prime Sample Attention, arXiv 1904.04821).

    Shapes: dets (N, 5) as x1, y1, x2, y2 and score, on the CPU.

    Returns:
        for each kept box, best first: its index, and those of the boxes that it
        suppresses (IoU at least ``iou_threshold``), best first.
    """
    boxes, scores = dets[:, :4], dets[:, 4]
    rest, groups = scores.argsort(descending=True), []
    while len(rest):
        best, rest = rest[:1], rest[1:]
        match = _iou(boxes[best[0]], boxes[rest], 0) >= iou_threshold
        groups.append(torch.cat((best, rest[match])).tolist())
        rest = rest[~match]
    return groups


def _iou(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
    """IoU of one box (4,) with each of ``boxes`` (N, 4) -> (N,)."""
    lower = torch.maximum(box[:2], boxes[:, :2])
    upper = torch.minimum(box[2:], boxes[:, 2:])
    overlap = (upper - lower + offset).clamp(min=0).prod(-1)
    area, areas = ((b[..., 2:] - b[..., :2] + offset).prod(-1) for b in (box, boxes))
    return overlap / (area + areas - overlap)
