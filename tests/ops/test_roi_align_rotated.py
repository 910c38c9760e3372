"""RoIAlign of rotated boxes, through mmcv's function, against plain loops."""

import math

import pytest
import torch
from mmcv.ops import roi_align_rotated

from ..helpers.op_references import clamped_bilinear, random, same_with_gradients

ROIS = torch.tensor(
    [
        [0, 20.0, 18.0, 30.3, 20.7, 0.0],
        [1, 30.2, 20.1, 22.0, 40.0, 0.7],
        [1, 60.2, 45.1, 30.0, 30.0, -2.0],  # beyond the map
        [0, 20.0, 20.0, 0.0, 3.0, 1.0],  # no area
    ],
    dtype=torch.float64,
)


def reference(maps, rois, size, scale, sampling_ratio, aligned, clockwise):
    """arXiv 1812.00155, section 3.2, with the samples of RoIAlign."""
    pooled = []
    for image, cx, cy, w, h, angle in rois.tolist():
        cx, cy = (v * scale - (0.5 if aligned else 0) for v in (cx, cy))
        w, h = (v * scale if aligned else max(v * scale, 1.0) for v in (w, h))
        angle = -angle if clockwise else angle
        ny = sampling_ratio or math.ceil(h / size[0])
        nx = sampling_ratio or math.ceil(w / size[1])
        for i in range(size[0]):
            for j in range(size[1]):
                total = maps[0, :, 0, 0] * 0
                for iy in range(ny):
                    for ix in range(nx):
                        yy = -h / 2 + (i + (iy + 0.5) / ny) * h / size[0]
                        xx = -w / 2 + (j + (ix + 0.5) / nx) * w / size[1]
                        y = yy * math.cos(angle) - xx * math.sin(angle) + cy
                        x = yy * math.sin(angle) + xx * math.cos(angle) + cx
                        at = (torch.tensor(v, dtype=torch.float64) for v in (y, x))
                        total = total + clamped_bilinear(maps[int(image)], *at)
                pooled.append(total / max(ny * nx, 1))
    return torch.stack(pooled).view(len(rois), *size, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("sampling_ratio", "aligned", "clockwise"),
    [(0, True, False), (2, True, True), (0, False, True)],
)
def test_roi_align_rotated(sampling_ratio, aligned, clockwise):
    maps = random(2, 3, 12, 16)
    inputs = maps.detach().contiguous(memory_format=torch.channels_last)
    inputs.requires_grad_()
    arguments = (3, 4), 0.25, sampling_ratio, aligned, clockwise
    expected = reference(maps, ROIS, *arguments)
    actual = roi_align_rotated(inputs, ROIS, *arguments)
    same_with_gradients(actual, expected, [inputs], [maps])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 4])
def test_training_dtypes(dtype, count):
    maps = random(2, 3, 12, 16).detach().to(dtype).requires_grad_()
    rois = ROIS[:count].to(dtype)
    actual = roi_align_rotated(maps, rois, 5, 0.25, 2)
    expected = roi_align_rotated(maps.double(), rois.double(), 5, 0.25, 2)
    assert actual.dtype == dtype
    assert actual.shape == (count, 3, 5, 5)
    assert torch.allclose(actual.double(), expected, rtol=1e-2, atol=1e-2)
    actual.float().sum().backward()
    assert bool(maps.grad.any()) == (count > 0)
