"""Overlaps and NMS of rotated boxes and quadrilaterals, against a plain clip."""

import math

import pytest
import torch
from mmcv.ops import box_iou_quadri, box_iou_rotated, nms_quadri, nms_rotated

from ..helpers.op_references import random


def corners_of(box):
    """x, y, width, height and clockwise angle -> four corners."""
    x, y, w, h, angle = box
    turned = []
    for dx, dy in ((-w, -h), (w, -h), (w, h), (-w, h)):
        turned.append(
            (
                x + dx / 2 * math.cos(angle) - dy / 2 * math.sin(angle),
                y + dx / 2 * math.sin(angle) + dy / 2 * math.cos(angle),
            )
        )
    return turned


def area(polygon):
    """Signed area, by the shoelace formula."""
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return sum(x * y2 - x2 * y for (x, y), (x2, y2) in pairs) / 2


def common_area(subject, clip):
    """Sutherland and Hodgman, with lists."""
    clip = clip if area(clip) >= 0 else clip[::-1]
    for (x1, y1), (x2, y2) in zip(clip, clip[1:] + clip[:1], strict=True):
        kept = []
        for p, q in zip(subject, subject[1:] + subject[:1], strict=True):
            side_p, side_q = (
                (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in (p, q)
            )
            if (side_p >= 0) != (side_q >= 0):
                t = side_p / (side_p - side_q)
                kept.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
            if side_q >= 0:
                kept.append(q)
        subject = kept
    return abs(area(subject)) if subject else 0.0


def overlap(first, second, mode="iou"):
    a, b = abs(area(first)), abs(area(second))
    if min(a, b) < 1e-14:
        return 0.0
    common = common_area(first, second)
    return common / (a + b - common if mode == "iou" else a)


def boxes_of(n, seed=0, dtype=torch.float64):
    """Random boxes, then equal ones, ones with common sides, and one of no area."""
    boxes = random(n, 5, seed=seed, grad=False)
    boxes[:, :2] *= 4
    boxes[:, 2:4] = boxes[:, 2:4].abs() * 8 + 1
    boxes[-1] = boxes[0]
    boxes[-2] = boxes[0] * torch.tensor([1, 1, 0.5, 1, 1])
    boxes[-3] = boxes[0] + torch.tensor([0, 0, 0, 0, math.pi])
    boxes[-4, 2] = 0
    return boxes.to(dtype)


@pytest.mark.parametrize("mode", ["iou", "iof"])
@pytest.mark.parametrize("clockwise", [True, False])
def test_box_iou_rotated(mode, clockwise):
    first, second = boxes_of(12), boxes_of(15, seed=1)
    second[0] = first[0]
    sign = 1 if clockwise else -1
    polygons = [
        [corners_of([*box[:4], sign * box[4]]) for box in boxes.tolist()]
        for boxes in (first, second)
    ]
    expected = torch.tensor(
        [[overlap(a, b, mode) for b in polygons[1]] for a in polygons[0]],
        dtype=torch.float64,
    )
    actual = box_iou_rotated(first, second, mode, clockwise=clockwise)
    assert torch.allclose(actual, expected, rtol=0, atol=1e-10)
    assert (expected > 0.05).sum() > 20
    aligned = box_iou_rotated(first, second[:12], mode, True, clockwise)
    assert torch.allclose(aligned, expected.diagonal(), rtol=0, atol=1e-10)
    far = torch.tensor([512.0, 512, 0, 0, 0])  # fp32 has fewer digits here
    first, second = ((boxes + far).float() for boxes in (first, second))
    low = box_iou_rotated(first, second, mode, clockwise=clockwise)
    assert torch.allclose(low.double(), expected, rtol=0, atol=1e-4)


def test_against_shapely():
    shapely = pytest.importorskip("shapely")
    first, second = boxes_of(12), boxes_of(15, seed=1)
    actual = box_iou_rotated(first, second)
    shapes = [
        [shapely.Polygon(corners_of(box)) for box in boxes.tolist()]
        for boxes in (first, second)
    ]
    for i, a in enumerate(shapes[0]):
        for j, b in enumerate(shapes[1]):
            if min(a.area, b.area) > 1e-9:
                expected = a.intersection(b).area / a.union(b).area
                assert actual[i, j] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("turned", [False, True])
def test_box_iou_quadri(turned):
    """Quadrilaterals that are no rectangles, with corners in either order."""
    quads = []
    for box in boxes_of(10).tolist():
        a, b, c, d = corners_of(box)
        c = (
            (b[0] + d[0]) / 2 + (c[0] - a[0]) * 0.3,
            (b[1] + d[1]) / 2 + (c[1] - a[1]) * 0.3,
        )
        quads.append([a, b, c, d][:: -1 if turned else 1])
    boxes = torch.tensor(quads, dtype=torch.float64).flatten(1)
    expected = [[overlap(a, b) for b in quads] for a in quads]
    expected = torch.tensor(expected, dtype=torch.float64)
    assert torch.allclose(box_iou_quadri(boxes, boxes), expected, rtol=0, atol=1e-10)
    aligned = box_iou_quadri(boxes, boxes.flip(0), aligned=True)
    assert torch.allclose(aligned, expected.flip(1).diagonal(), rtol=0, atol=1e-10)


def plain_nms(polygons, scores, labels, threshold):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        same = [k for k in kept if labels is None or labels[k] == labels[i]]
        if all(overlap(polygons[i], polygons[k]) <= threshold for k in same):
            kept.append(i)
    return kept


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("threshold", [0.1, 0.45])
def test_nms(labelled, threshold):
    boxes, scores = boxes_of(40), torch.linspace(0, 1, 40, dtype=torch.float64)
    scores = scores[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    labels = torch.arange(40, dtype=torch.float64) % 2 if labelled else None
    polygons = [corners_of(box) for box in boxes.tolist()]
    expected = plain_nms(polygons, scores, labels, threshold)
    dets, kept = nms_rotated(boxes, scores, threshold, labels)
    assert kept.tolist() == expected
    assert torch.equal(dets, torch.cat((boxes, scores[:, None]), 1)[kept])
    quads = torch.tensor(polygons, dtype=torch.float64).flatten(1)
    assert nms_quadri(quads, scores, threshold, labels)[1].tolist() == expected


def test_edges():
    """None, and values that are not finite: they suppress nothing."""
    boxes = boxes_of(6, dtype=torch.float32)
    assert box_iou_rotated(boxes[:0], boxes).shape == (0, 6)
    assert nms_rotated(boxes[:0], boxes[:0, 0], 0.5)[0].shape == (0, 5)
    boxes[1, 0], boxes[2, 4], scores = math.nan, math.inf, torch.rand(6)
    iou = box_iou_rotated(boxes, boxes)
    assert not iou[1:3].any()
    assert not iou[:, 1:3].any()
    assert {1, 2} <= set(nms_rotated(boxes, scores, 0.5)[1].tolist())


def test_many_pairs_are_computed_in_chunks(monkeypatch):
    from convnext_dense.ops import rotated_iou

    boxes = boxes_of(20)
    expected = box_iou_rotated(boxes, boxes)
    monkeypatch.setattr(rotated_iou, "PAIRS_AT_A_TIME", 7)
    assert torch.equal(box_iou_rotated(boxes, boxes), expected)
