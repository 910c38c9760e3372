"""Overlaps of boxes, through mmcv's function, against plain loops."""

import pytest
import torch
from mmcv.ops import bbox_overlaps

from ..helpers.op_references import random


def boxes_of(n, seed):
    boxes = random(n, 4, seed=seed, grad=False) * 5
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:].abs()
    return boxes


@pytest.mark.parametrize("mode", ["iou", "iof"])
@pytest.mark.parametrize("offset", [0, 1])
def test_bbox_overlaps(mode, offset):
    first, second = boxes_of(6, 0), boxes_of(5, 1)
    expected = torch.zeros(6, 5, dtype=torch.float64)
    for i, a in enumerate(first.tolist()):
        for j, b in enumerate(second.tolist()):
            w = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
            h = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
            areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
            base = sum(areas) - w * h if mode == "iou" else areas[0]
            expected[i, j] = w * h / max(base, offset)
    actual = bbox_overlaps(first, second, mode, offset=offset)
    assert torch.allclose(actual, expected)
    aligned = bbox_overlaps(first[:5], second, mode, aligned=True, offset=offset)
    assert torch.allclose(aligned, expected.diagonal())
    half = bbox_overlaps(first.half(), second.half(), mode, offset=offset)
    assert torch.allclose(half.double(), expected, atol=2e-2)


def test_no_boxes():
    assert bbox_overlaps(boxes_of(0, 0), boxes_of(3, 1)).shape == (0, 3)
