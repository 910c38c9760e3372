"""Non-maximum suppression of boxes."""

import numpy as np
import torch
import torchvision
from torch import Tensor

from .precision import at_least_fp32


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Non-maximum suppression: the indices of the kept boxes, best score first.

    Shapes: boxes (N, 4) as x1, y1, x2, y2 in pixels, scores (N,) -> (K,). With
    ``offset`` 1 a box includes its last pixel, as boxes of mmdet 1 did.
    """
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), 1)
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
    # In NumPy: mmcv calls this on the CPU, and most of the time is that of the calls.
    boxes, scores = at_least_fp32(boxes, scores)
    rest = np.concatenate((boxes.numpy(), scores.numpy()[:, None]), 1)
    numbers = np.arange(len(rest))
    kept: list[int] = []
    rows: list[np.ndarray] = []
    while len(rest):
        best = rest[:, 4].argmax()
        kept.append(numbers[best])
        rows.append(rest[best].copy())
        iou = _ious(rest[best], rest, offset)
        if method == 0:
            rest[iou >= iou_threshold, 4] = 0
        elif method == 1:
            rest[:, 4] *= np.where(iou >= iou_threshold, 1 - iou, 1)
        else:
            rest[:, 4] *= np.exp(-(iou**2) / sigma)
        left = rest[:, 4] >= min_score
        left[best] = False
        rest, numbers = rest[left], numbers[left]
    if rows:
        dets[: len(rows)] = torch.from_numpy(np.stack(rows))
    return torch.tensor(kept, dtype=torch.long)


def _ious(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """IoU of a box (4 or more,) with each of ``boxes`` (N, 4 or more) -> (N,)."""
    x1, y1, x2, y2 = boxes.T[:4]
    width = np.minimum(box[2], x2) - np.maximum(box[0], x1) + offset
    height = np.minimum(box[3], y2) - np.maximum(box[1], y1) + offset
    overlap = width.clip(0) * height.clip(0)
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    area = (box[2] - box[0] + offset) * (box[3] - box[1] + offset)
    with np.errstate(invalid="ignore"):  # boxes without an area
        return overlap / (area + areas - overlap)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """NMS that keeps the groups (Prime Sample Attention, arXiv 1904.04821).

    Shapes: dets (N, 5) as x1, y1, x2, y2 and score, on the CPU.

    Returns:
        for each kept box, best first: its index, and those of the boxes that it
        suppresses (IoU at least ``iou_threshold``), best first.
    """
    (rows,) = at_least_fp32(dets)
    boxes = rows.numpy()
    rest, groups = (-boxes[:, 4]).argsort(kind="stable"), []
    while len(rest):
        best, rest = rest[:1], rest[1:]
        match = _ious(boxes[best[0]], boxes[rest], 0) >= iou_threshold
        groups.append([*best.tolist(), *rest[match].tolist()])
        rest = rest[~match]
    return groups
