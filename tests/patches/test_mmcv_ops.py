"""The stand-ins, through mmcv's own functions, against independent references."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from mmcv.ops import RoIAlign, nms, roi_align, sigmoid_focal_loss, soft_nms

from convnext_dense.patches import mmcv_ops

from ..helpers.running import shell

pytestmark = pytest.mark.skipif(
    find_spec("mmcv._ext").origin != mmcv_ops.__file__,
    reason="this mmcv has compiled ops",
)


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


def sampling(start, length, bins, samples, size):
    """Bilinear weights (bins * samples, size) of points spread evenly over bins."""
    step = length / bins
    points = [
        start + b * step + (s + 0.5) * step / samples
        for b in range(bins)
        for s in range(samples)
    ]
    weights = torch.zeros(len(points), size, dtype=torch.float64)
    for row, at in enumerate(points):
        if at < -1 or at > size:
            continue
        at = min(max(at, 0.0), size - 1.0)
        low = min(int(at), size - 1)
        high = min(low + 1, size - 1)
        weights[row, low] += 1 - (at - low)
        weights[row, high] += at - low
    return weights


def reference_roi_align(maps, rois, size, scale, sampling_ratio, aligned):
    """Mask R-CNN, section 3: bilinear samples in each bin, averaged. float64."""
    pooled = []
    for image, *box in rois.double().tolist():
        x1, y1, x2, y2 = (v * scale - (0.5 if aligned else 0) for v in box)
        w, h = x2 - x1, y2 - y1
        if not aligned:
            w, h = max(w, 1.0), max(h, 1.0)
        ny = sampling_ratio or int(np.ceil(h / size[0]))
        nx = sampling_ratio or int(np.ceil(w / size[1]))
        wy = sampling(y1, h, size[0], ny, maps.shape[2])
        wx = sampling(x1, w, size[1], nx, maps.shape[3])
        samples = torch.einsum("yh,chw,xw->cyx", wy, maps[int(image)], wx)
        samples = samples.reshape(-1, size[0], ny, size[1], nx)
        pooled.append(samples.sum((2, 4)) / max(ny * nx, 1))
    return torch.stack(pooled)


ROIS = torch.tensor(
    [
        [0, 4.3, 8.1, 40.7, 55.2],
        [1, 0.0, 0.0, 63.0, 47.0],
        [1, 30.2, 10.4, 33.9, 13.0],  # smaller than a pixel of the map
        [0, -9.0, -5.0, 20.0, 30.0],  # reaches outside
        [0, 50.0, 40.0, 90.0, 70.0],
    ]
)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("channels_last", [True, False])
def test_roi_align_forward_and_backward(sampling_ratio, aligned, channels_last):
    maps = torch.rand(2, 3, 12, 16, dtype=torch.float64, requires_grad=True)
    expected = reference_roi_align(maps, ROIS, (7, 5), 0.25, sampling_ratio, aligned)
    probe = torch.randn_like(expected)
    (expected_grad,) = torch.autograd.grad((expected * probe).sum(), maps)

    inputs = maps.detach()
    if channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    inputs.requires_grad_()
    actual = roi_align(
        inputs, ROIS.double(), (7, 5), 0.25, sampling_ratio, "avg", aligned
    )
    (grad,) = torch.autograd.grad((actual * probe).sum(), inputs)
    assert torch.allclose(actual, expected, atol=1e-12)
    assert torch.allclose(grad, expected_grad, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_roi_align_in_training_dtypes(dtype):
    maps = torch.rand(2, 3, 12, 16).to(dtype).requires_grad_()
    exact = maps.detach().double().requires_grad_()
    actual = RoIAlign((7, 7), 0.25, 2)(maps, ROIS.to(dtype))
    expected = reference_roi_align(exact, ROIS.to(dtype), (7, 7), 0.25, 2, True)
    assert actual.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 8e-3
    assert torch.allclose(actual.double(), expected, atol=tolerance)
    actual.float().sum().backward()
    expected.sum().backward()
    assert torch.allclose(maps.grad.double(), exact.grad, rtol=1e-2, atol=1e-4)


def test_roi_align_of_no_rois():
    maps = torch.rand(1, 3, 8, 8, requires_grad=True)
    actual = roi_align(maps, torch.zeros(0, 5), (7, 7), 0.25, 0, "avg", True)
    assert actual.shape == (0, 3, 7, 7)
    actual.sum().backward()
    assert not maps.grad.any()


def test_roi_align_max_is_refused():
    with pytest.raises(NotImplementedError, match="pool_mode='avg'"):
        roi_align(torch.rand(1, 3, 8, 8), ROIS[:1], (7, 7), 0.25, 0, "max", True)


def test_focal_loss():
    logits = torch.randn(20, 4, requires_grad=True)
    target = torch.randint(0, 5, (20,))  # 4 is background
    p = logits.double().sigmoid()
    truth = (target[:, None] == torch.arange(4)).double()
    pt = p * truth + (1 - p) * (1 - truth)
    alpha = 0.25 * truth + 0.75 * (1 - truth)
    expected = (-alpha * (1 - pt) ** 2 * pt.log()).sum() / 20
    actual = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "mean")
    assert actual.item() == pytest.approx(expected.item(), rel=1e-5)
    (expected_grad,) = torch.autograd.grad(expected, logits, retain_graph=True)
    (grad,) = torch.autograd.grad(actual, logits)
    assert torch.allclose(grad, expected_grad, atol=1e-6)


def test_op_without_stand_in_names_itself_and_the_remedy():
    from mmcv.ops import nms_rotated

    with pytest.raises(NotImplementedError, match=r"'nms_rotated'.*pip install"):
        nms_rotated(torch.rand(2, 5), torch.rand(2), 0.5)


def fresh(code):
    done = shell("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_the_package_is_enough_and_says_so_once():
    said = fresh(
        "import convnext_dense, mmdet.models, mmseg.models\n"
        "from mmengine.utils.dl_utils import collect_env; collect_env()\n"
        "from mmcv.ops import get_compiler_version; print(get_compiler_version())"
    )
    assert said.count("mmcv has no compiled ops here") == 1
    assert "stand-ins of convnext_dense" in said


def test_compiled_ops_are_never_replaced(tmp_path):
    """With a compiled module in mmcv's folder, the stand-ins stay away."""
    (tmp_path / "_ext.py").write_text("origin = 'compiled'")
    said = fresh(
        "import mmcv, convnext_dense\n"
        f"mmcv.__path__.append({str(tmp_path)!r})\n"
        "import mmcv._ext as ext; print(ext.origin)"
    )
    assert "compiled" in said
    assert "no compiled ops" not in said
