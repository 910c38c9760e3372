"""Overlaps and NMS of rotated boxes and of quadrilaterals."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import polygons
from .precision import at_least_fp32

PAIRS_AT_A_TIME = 1 << 16
"""Bounds the memory."""

_SMALLEST_AREA = 1e-14  # as in the compiled op: a box below it overlaps nothing


def box_iou_rotated(
    boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool
) -> None:
    """Write the overlaps of rotated boxes into ``ious``.

    Shapes: boxes (M, 5) and (N, 5) as centre x, y, width, height and angle (radians,
    clockwise in the image) -> (M * N,), or (M,) if ``aligned``. ``mode_flag`` 0 is the
    IoU, 1 the intersection over the first box's area.
    """
    first, second = map(_rotated, at_least_fp32(boxes1, boxes2))
    ious.copy_(_overlaps(first, second, mode_flag, aligned).flatten())


def box_iou_quadri(
    boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool
) -> None:
    """Write the overlaps of convex quadrilaterals into ``ious``.

    Shapes as for ``box_iou_rotated``, with boxes (M, 8) as x and y of each corner.
    """
    first, second = map(_quadrilaterals, at_least_fp32(boxes1, boxes2))
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
    return _nms(_rotated(boxes[:, :5]), classes, order, iou_threshold)


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
    return _nms(_quadrilaterals(boxes[:, :8]), classes, order, iou_threshold)


class _Polygons(NamedTuple):
    """Convex polygons. Near their centres fp32 keeps more digits.

    Attributes:
        centre: (N, 2).
        corners: from the centre (N, 4, 2).
    """

    centre: Tensor
    corners: Tensor

    def at(self, index: Tensor | slice) -> "_Polygons":
        """Some of the polygons."""
        return _Polygons(self.centre[index], self.corners[index])


def _rotated(boxes: Tensor) -> _Polygons:
    """Polygons of rotated boxes (N, 5)."""
    size, angle = boxes[:, 2:4], boxes[:, 4]
    sine, cosine = angle.sin(), angle.cos()
    across = size[:, :1] / 2 * torch.stack((cosine, sine), 1)
    down = size[:, 1:] / 2 * torch.stack((-sine, cosine), 1)
    corners = (-across - down, across - down, across + down, down - across)
    return _Polygons(boxes[:, :2], torch.stack(corners, 1))


def _quadrilaterals(boxes: Tensor) -> _Polygons:
    """Polygons of quadrilaterals (N, 8)."""
    corners = boxes.unflatten(1, (4, 2))
    centre = corners.mean(1)
    return _Polygons(centre, corners - centre[:, None])


def _overlaps(first: _Polygons, second: _Polygons, mode: int, aligned: bool) -> Tensor:
    """Overlaps (M, N), or (M,) if ``aligned``."""
    touch = _touching(first, second, aligned)
    result = first.centre.new_zeros(touch.shape)
    pairs = touch.nonzero(as_tuple=True)
    result[pairs] = _pair_overlaps(first, second, pairs[0], pairs[-1], mode)
    return result


def _touching(first: _Polygons, second: _Polygons, aligned: bool = False) -> Tensor:
    """Which upright boxes around polygons overlap. False where a corner is NaN."""
    low, high, low2, high2 = (
        edge(1) + polygons.centre
        for polygons in (first, second)
        for edge in (polygons.corners.amin, polygons.corners.amax)
    )
    if not aligned:
        low, high = low[:, None], high[:, None]
    return ((low < high2) & (low2 < high)).all(-1)


def _pair_overlaps(
    first: _Polygons, second: _Polygons, i: Tensor, j: Tensor, mode: int
) -> Tensor:
    """The overlap of ``first[i]`` with ``second[j]`` for each pair (P,)."""
    result = [first.centre.new_zeros(0)]
    for start in range(0, len(i), PAIRS_AT_A_TIME):
        chunk = slice(start, start + PAIRS_AT_A_TIME)
        a, b = first.at(i[chunk]), second.at(j[chunk])
        moved = a.corners + (a.centre - b.centre)[:, None]
        common = polygons.common_areas(moved, b.corners)
        area, area2 = (polygons.areas(p.corners).abs() for p in (a, b))
        base = area + area2 - common if mode == 0 else area
        solid = (area >= _SMALLEST_AREA) & (area2 >= _SMALLEST_AREA)
        result.append((common / base).where(solid, 0))
    return torch.cat(result)


def _nms(
    boxes: _Polygons, classes: Tensor | None, order: Tensor, iou_threshold: float
) -> Tensor:
    """NMS of polygons from best to worst: indices in ``order`` (K,)."""
    dropped = np.zeros(len(order), bool)
    kept = []
    rows = max(1, (1 << 22) // max(len(order), 1))  # bounds the memory
    for start in range(0, len(order), rows):
        some = slice(start, start + rows)
        touch = _touching(boxes.at(some), boxes)
        if classes is not None:
            touch &= classes[some, None] == classes
        i, j = touch.triu(start + 1).nonzero(as_tuple=True)
        over = _pair_overlaps(boxes.at(some), boxes, i, j, 0) > iou_threshold
        i, j = i[over].cpu().numpy(), j[over].cpu().numpy()
        first = np.searchsorted(i, np.arange(len(touch) + 1))
        for row in range(len(touch)):
            if not dropped[start + row]:
                kept.append(start + row)
                dropped[j[first[row] : first[row + 1]]] = True
    return order[torch.as_tensor(kept, dtype=torch.long, device=order.device)]
