"""NMS, soft-NMS and groups of NMS, through mmcv's functions, against plain loops."""

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms, nms, nms_match, soft_nms


def boxes_and_scores(n=60, seed=0):
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 60, (n, 2)), rng.uniform(5, 40, (n, 2))
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    return boxes, rng.permutation(np.linspace(0.05, 0.95, n)).astype(np.float32)


def iou(a, b, offset):
    wh = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + offset
    inter = np.prod(np.maximum(wh, 0))
    area = [np.prod(box[2:] - box[:2] + offset) for box in (a, b)]
    return inter / (sum(area) - inter)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_nms(threshold, offset):
    boxes, scores = boxes_and_scores()
    kept = []
    for i in np.argsort(-scores):
        if all(iou(boxes[i], boxes[k], offset) <= threshold for k in kept):
            kept.append(i)
    dets, indices = nms(boxes, scores, threshold, offset=offset)
    assert indices.tolist() == kept
    assert np.array_equal(dets[:, :4], boxes[kept])
    assert np.array_equal(dets[:, 4], scores[kept])


def test_nms_options_and_edges():
    boxes, scores = map(torch.from_numpy, boxes_and_scores())
    dets, _ = nms(boxes, scores, 0.5, score_threshold=0.5, max_num=3)
    assert len(dets) == 3
    assert (dets[:, 4] > 0.5).all()
    dets, indices = nms(boxes[:0], scores[:0], 0.5)
    assert dets.shape == (0, 5)
    assert indices.shape == (0,)


def reference_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    boxes, scores = boxes.astype(np.float64), scores.astype(np.float64)
    left, kept = list(range(len(boxes))), []
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        kept.append((best, scores[best]))
        for i in list(left):
            overlap = iou(boxes[best], boxes[i], offset)
            if method == "gaussian":
                scores[i] *= np.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                scores[i] *= 0 if method == "naive" else 1 - overlap
            if scores[i] < min_score:
                left.remove(i)
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms(method, offset):
    boxes, scores = boxes_and_scores(40)
    expected = reference_soft_nms(boxes, scores, 0.3, 0.5, 1e-3, method, offset)
    before = scores.copy()
    dets, indices = soft_nms(boxes, scores, 0.3, 0.5, 1e-3, method, offset)
    assert indices.tolist() == [i for i, _ in expected]
    assert np.allclose(dets[:, 4], [s for _, s in expected], atol=1e-6)
    assert np.array_equal(dets[:, :4], boxes[indices])
    assert np.array_equal(scores, before)


def test_soft_nms_of_nothing():
    boxes, scores = boxes_and_scores(3)
    dets, indices = soft_nms(boxes[:0], scores[:0])
    assert len(dets) == len(indices) == 0


@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_nms_match(threshold):
    boxes, scores = boxes_and_scores()
    rest, groups = list(np.argsort(-scores)), []
    while rest:
        best = rest.pop(0)
        match = [i for i in rest if iou(boxes[best], boxes[i], 0) >= threshold]
        groups.append([best, *match])
        rest = [i for i in rest if i not in match]
    dets = np.concatenate((boxes, scores[:, None]), 1)
    assert [group.tolist() for group in nms_match(dets, threshold)] == groups
    of_tensors = nms_match(torch.from_numpy(dets), threshold)
    assert [group.tolist() for group in of_tensors] == groups
    assert nms_match(dets[:0], threshold) == []


def test_batched_nms_keeps_classes_apart():
    boxes, scores = map(torch.from_numpy, boxes_and_scores())
    classes = torch.arange(len(boxes)) % 3
    dets, kept = batched_nms(
        boxes, scores, classes, {"type": "nms", "iou_threshold": 0.3}
    )
    expected = []
    for c in range(3):
        of_class = (classes == c).nonzero()[:, 0]
        expected += of_class[nms(boxes[of_class], scores[of_class], 0.3)[1]].tolist()
    assert sorted(kept.tolist()) == sorted(expected)
    assert torch.equal(dets[:, 4], scores[kept])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_nms_dtypes(dtype):
    boxes, scores = map(torch.from_numpy, boxes_and_scores())
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    dets, kept = nms(boxes, scores, 0.5)
    assert dets.dtype == dtype
    assert torch.equal(kept, nms(boxes.float(), scores.float(), 0.5)[1])


def test_values_that_are_not_finite():
    """They neither hang nor suppress the others."""
    boxes, scores = map(torch.from_numpy, boxes_and_scores(6))
    boxes[:] = torch.arange(6)[:, None] * 100.0 + torch.tensor([0.0, 0, 9, 9])
    scores[2], boxes[4] = float("nan"), float("nan")
    assert {0, 1, 3, 5} <= set(nms(boxes, scores, 0.5)[1].tolist())
    assert {0, 1, 3, 5} <= set(soft_nms(boxes, scores)[1].tolist())
    groups = nms_match(torch.cat((boxes, scores[:, None]), 1), 0.5)
    assert sorted(i for group in groups for i in group.tolist()) == list(range(6))
