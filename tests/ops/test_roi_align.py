"""RoIAlign, through mmcv's functions, against bilinear weights and plain loops."""

import math

import numpy as np
import pytest
import torch
from mmcv.ops import RoIAlign, roi_align

from ..helpers.op_references import clamped_bilinear, random, same_with_gradients


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


def reference_maxima(maps, rois, size, scale, sampling_ratio, aligned):
    """The largest sample of each bin; zero in a bin without samples."""
    pooled = []
    for image, *box in rois.double().tolist():
        x1, y1, x2, y2 = (v * scale - (0.5 if aligned else 0) for v in box)
        w, h = x2 - x1, y2 - y1
        if not aligned:
            w, h = max(w, 1.0), max(h, 1.0)
        ny = sampling_ratio or max(math.ceil(h / size[0]), 0)
        nx = sampling_ratio or max(math.ceil(w / size[1]), 0)
        for i in range(size[0]):
            for j in range(size[1]):
                samples = [maps[0, :, 0, 0] * 0] if not ny * nx else []
                for iy in range(ny):
                    for ix in range(nx):
                        y = y1 + (i + (iy + 0.5) / ny) * h / size[0]
                        x = x1 + (j + (ix + 0.5) / nx) * w / size[1]
                        at = (torch.tensor(v, dtype=torch.float64) for v in (y, x))
                        samples.append(clamped_bilinear(maps[int(image)], *at))
                pooled.append(torch.stack(samples).max(0).values)
    return torch.stack(pooled).view(len(rois), *size, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_max(sampling_ratio, aligned):
    maps = random(2, 3, 12, 16)
    inputs = maps.detach().contiguous(memory_format=torch.channels_last)
    inputs.requires_grad_()
    arguments = (3, 4), 0.25, sampling_ratio
    expected = reference_maxima(maps, ROIS, *arguments, aligned)
    actual = roi_align(inputs, ROIS.double(), *arguments, "max", aligned)
    same_with_gradients(actual, expected, [inputs], [maps])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_roi_align_max_in_training_dtypes(dtype):
    maps = random(2, 3, 12, 16).to(dtype).detach().requires_grad_()
    pooled = RoIAlign(7, 0.25, 2, "max")(maps, ROIS.to(dtype))
    exact = roi_align(maps.double(), ROIS.to(dtype).double(), 7, 0.25, 2, "max", True)
    assert pooled.dtype == dtype
    assert torch.allclose(pooled.double(), exact, rtol=1e-2, atol=1e-2)
    pooled.float().sum().backward()
    assert maps.grad.abs().sum() > 0


def test_roi_align_max_of_no_rois():
    maps = torch.rand(1, 3, 8, 8, requires_grad=True)
    actual = roi_align(maps, torch.zeros(0, 5), (7, 7), 0.25, 0, "max", True)
    assert actual.shape == (0, 3, 7, 7)
    actual.sum().backward()
    assert not maps.grad.any()
