"""NMS of lanes, against plain loops."""

import pytest
import torch

from convnext_dense import ops

from ..helpers.op_references import random

ROWS = 72


def lanes_of(n, seed=0):
    lanes = torch.zeros(n, 5 + ROWS, dtype=torch.float64)
    places = random(3, n, seed=seed, grad=False).sigmoid()
    lanes[:, 2], lanes[:, 4] = places[0] * 0.5, (places[1] * 60).round() + 1
    lanes[:, 5:] = places[2][:, None] * 200 + torch.arange(ROWS)
    return lanes


def close(a, b, threshold):
    start = max(int(lane[2] * (ROWS - 1) + 0.5) for lane in (a, b))
    ends = (int(lane[2] * (ROWS - 1) + 0.5) + int(lane[4]) - 1 for lane in (a, b))
    end = min(*ends, ROWS - 1)
    if end < start:
        return False
    distance = sum(abs(a[5 + i] - b[5 + i]) for i in range(start, end + 1))
    return distance / (end - start + 1) < threshold


@pytest.mark.parametrize("top_k", [4, 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_line_nms(top_k, dtype):
    lanes, scores = lanes_of(40), random(40, seed=1, grad=False)
    kept, parents = [], [0] * 40
    for i in scores.argsort(descending=True).tolist():
        near = [k for k in kept if close(lanes[i], lanes[k], 15)]
        if not near and len(kept) < top_k:
            kept.append(i)
            parents[i] = len(kept)
        elif near:
            parents[i] = kept.index(near[-1]) + 1
    actual = ops.line_nms_forward(lanes.to(dtype), scores, 15, top_k)
    assert actual[1] == len(kept)
    assert actual[0].tolist() == kept + [0] * (40 - len(kept))
    assert actual[2].tolist() == parents
    assert 3 < len(kept) < 20


def test_through_mmcv():
    mmcv_ops = pytest.importorskip("mmcv.ops")
    if not hasattr(mmcv_ops, "line_nms"):
        pytest.skip("this mmcv has no line_nms")
    lanes, scores = lanes_of(10), torch.rand(10)
    keep, count, _ = mmcv_ops.line_nms(lanes, scores, 15.0, 3)
    assert len(keep[:count]) == count <= 3


def test_edges():
    keep, count, parents = ops.line_nms_forward(lanes_of(0), torch.rand(0), 15, 5)
    assert (len(keep), int(count), len(parents)) == (0, 0, 0)
    lanes = lanes_of(3)
    lanes[0, 2:] = float("nan")
    lanes[1, 4] = 0  # no points
    assert ops.line_nms_forward(lanes, torch.rand(3), 15, 5)[1] == 3
