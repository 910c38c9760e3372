"""Overlaps and NMS of rotated boxes and of quadrilaterals."""

import numpy as np
import torch
from torch import Tensor

from . import polygons
from .precision import at_least_fp32

_SMALLEST_AREA = 1e-14  # as in the compiled op: a box below it overlaps nothing


def box_iou_rotated(
    boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool
) -> None:
    """Write the overlaps of rotated boxes into ``ious``.

    Shapes: boxes (M, 5) and (N, 5) as centre x, y, width, height and angle (radians,
    clockwise in the image) -> (M * N,), or (M,) if ``aligned``. ``mode_flag`` 0 is the
    IoU, 1 the intersection over the first box's area.
    """
    first, second = map(_corners, at_least_fp32(boxes1, boxes2))
    ious.copy_(_overlaps(first, second, mode_flag, aligned).flatten())


def box_iou_quadri(
    boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool
) -> None:
    """Write the overlaps of convex quadrilaterals into ``ious``.

    Shapes as for ``box_iou_rotated``, with boxes (M, 8) as x and y of each corner.
    """
    first, second = (b.unflatten(1, (4, 2)) for b in at_least_fp32(boxes1, boxes2))
    ious.copy_(_overlaps(first, second, mode_flag, aligned).flatten())


def nms_rotated(
    dets: Tensor,
    scores: Tensor,
    order: Tensor,
    dets_sorted: Tensor,
    labels: Tensor,
    iou_threshold: float,
    multi_label: int,
) -> Tensor:
    """NMS of rotated boxes: the indices of the kept ones (K,), best score first.

    Shapes: dets_sorted (N, 5), or (N, 6) with the class if ``multi_label``; order (N,)
    from best to worst. A box goes if its IoU with a better kept one of its class is
    above the threshold, as the documentation says. (The compiled op for CPUs ignores
    classes, and drops at the threshold too.)
    """
    (boxes,) = at_least_fp32(dets_sorted)
    classes = boxes[:, 5] if multi_label else None
    return _nms(_corners(boxes[:, :5]), classes, order, iou_threshold)


def nms_quadri(
    dets: Tensor,
    scores: Tensor,
    order: Tensor,
    dets_sorted: Tensor,
    iou_threshold: float,
    multi_label: int,
) -> Tensor:
    """NMS of convex quadrilaterals, as ``nms_rotated`` but (N, 8) or (N, 9)."""
    (boxes,) = at_least_fp32(dets_sorted)
    classes = boxes[:, 8] if multi_label else None
    return _nms(boxes[:, :8].unflatten(1, (4, 2)), classes, order, iou_threshold)


def _corners(boxes: Tensor) -> Tensor:
    """Corners (N, 4, 2) of rotated boxes (N, 5)."""
    centre, size, angle = boxes[:, :2], boxes[:, 2:4], boxes[:, 4]
    sine, cosine = angle.sin(), angle.cos()
    across = size[:, :1] / 2 * torch.stack((cosine, sine), 1)
    down = size[:, 1:] / 2 * torch.stack((-sine, cosine), 1)
    return torch.stack(
        (
            centre - across - down,
            centre + across - down,
            centre + across + down,
            centre - across + down,
        ),
        1,
    )


def _overlaps(first: Tensor, second: Tensor, mode: int, aligned: bool) -> Tensor:
    """Overlaps (M, N), or (M,) if ``aligned``, of polygons (M, 4, 2), (N, 4, 2)."""
    touch = _touching(first, second, aligned)
    result = first.new_zeros(touch.shape)
    pairs = touch.nonzero(as_tuple=True)
    i, j = pairs[0], pairs[-1]
    result[pairs] = _pair_overlaps(first, second, i, j, mode)
    return result


def _touching(first: Tensor, second: Tensor, aligned: bool = False) -> Tensor:
    """Which upright boxes around polygons overlap. False where a corner is NaN."""
    low, high = first.amin(1), first.amax(1)
    low2, high2 = second.amin(1), second.amax(1)
    if not aligned:
        low, high = low[:, None], high[:, None]
    return ((low < high2) & (low2 < high)).all(-1)


def _pair_overlaps(
    first: Tensor, second: Tensor, i: Tensor, j: Tensor, mode: int
) -> Tensor:
    """The overlap of ``first[i]`` with ``second[j]`` for each pair (P,)."""
    areas, areas2 = polygons.areas(first).abs(), polygons.areas(second).abs()
    results = []
    for a, b in zip(
        i.split(polygons.PAIRS_AT_A_TIME),
        j.split(polygons.PAIRS_AT_A_TIME),
        strict=True,
    ):
        common = polygons.common_areas(first[a], second[b])
        base = areas[a] + areas2[b] - common if mode == 0 else areas[a]
        solid = (areas[a] >= _SMALLEST_AREA) & (areas2[b] >= _SMALLEST_AREA)
        results.append((common / base).where(solid, 0))
    return torch.cat(results) if results else first.new_zeros(0)


def _nms(
    boxes: Tensor, classes: Tensor | None, order: Tensor, iou_threshold: float
) -> Tensor:
    """NMS of polygons (N, 4, 2) from best to worst: indices in ``order``."""
    dropped = np.zeros(len(boxes), bool)
    kept = []
    rows = max(1, (1 << 22) // max(len(boxes), 1))
    for start in range(0, len(boxes), rows):
        touch = _touching(boxes[start : start + rows], boxes)
        if classes is not None:
            touch &= classes[start : start + rows, None] == classes
        i, j = touch.triu(start + 1).nonzero(as_tuple=True)
        over = _pair_overlaps(boxes[start : start + rows], boxes, i, j, 0)
        over = over > iou_threshold
        i, j = i[over].cpu().numpy(), j[over].cpu().numpy()
        first = np.searchsorted(i, np.arange(len(touch) + 1))
        for row in range(len(touch)):
            if not dropped[start + row]:
                kept.append(start + row)
                dropped[j[first[row] : first[row + 1]]] = True
    return order[torch.as_tensor(kept, dtype=torch.long, device=order.device)]
