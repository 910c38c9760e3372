"""RoI pooling, through mmcv's functions, against plain loops."""

import math

import pytest
import torch
from mmcv.ops import RoIPool, roi_pool

from ..helpers.op_references import random, same_with_gradients

ROIS = torch.tensor(
    [
        [0, 3.0, 2.0, 40.0, 30.0],
        [1, -9.0, -9.0, 13.0, 11.0],
        [1, 30.2, 20.7, 90.0, 80.0],  # beyond the map
        [0, 5.0, 5.0, 5.0, 5.0],  # a pixel
        [0, 20.0, 20.0, 10.0, 10.0],  # no area
        [1, 500.0, 500.0, 600.0, 600.0],  # outside
    ]
)


def reference(maps, rois, size, scale):
    """Fast R-CNN, section 2.1. The edges of bins are rounded, those of RoIs are not."""
    height, width = maps.shape[2:]
    pooled = []
    for image, x1, y1, x2, y2 in rois.double().tolist():
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        for i in range(size[0]):
            for j in range(size[1]):
                step_y, step_x = (y2 - y1) / size[0], (x2 - x1) / size[1]
                top = max(math.floor(y1 + i * step_y), 0)
                bottom = min(math.ceil(y1 + (i + 1) * step_y), height)
                left = max(math.floor(x1 + j * step_x), 0)
                right = min(math.ceil(x1 + (j + 1) * step_x), width)
                pixels = maps[int(image), :, top:bottom, left:right].flatten(1)
                empty = x2 <= x1 or y2 <= y1 or bottom <= top or right <= left
                value = maps[int(image), :, 0, 0] * 0 if empty else pixels.max(1).values
                pooled.append(value)
    return torch.stack(pooled).view(len(rois), *size, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("scale", [0.25, 0.3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_roi_pool(scale, channels_last):
    maps = random(2, 3, 12, 16)
    inputs = maps.detach().clone()
    if channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    inputs.requires_grad_()
    expected = reference(maps, ROIS, (3, 5), scale)
    actual = roi_pool(inputs, ROIS.double(), (3, 5), scale)
    same_with_gradients(actual, expected, [inputs], [maps])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_training_dtypes(dtype):
    maps = torch.randn(2, 3, 12, 16).to(dtype).requires_grad_()
    exact = maps.detach().double().requires_grad_()
    actual = RoIPool((7, 7), 0.25)(maps, ROIS.to(dtype))
    expected = reference(exact, ROIS.to(dtype), (7, 7), 0.25)
    assert actual.dtype == dtype
    same_with_gradients(actual, expected, [maps], [exact], 2e-2)


def test_no_rois_and_no_images():
    for images in (0, 1):
        maps = torch.rand(images, 3, 8, 8, requires_grad=True)
        actual = roi_pool(maps, torch.zeros(0, 5), 7, 0.25)
        assert actual.shape == (0, 3, 7, 7)
        actual.sum().backward()
        assert not maps.grad.any()


def test_rois_that_are_not_finite():
    """They do not disturb the others."""
    rois = ROIS[:3].clone()
    rois[1, 1:] = float("nan")
    maps = torch.rand(2, 3, 8, 8)
    expected = roi_pool(maps, ROIS[:3], 7, 0.25)
    actual = roi_pool(maps, rois, 7, 0.25)
    assert torch.equal(actual[[0, 2]], expected[[0, 2]])
    assert not actual[1].any()
