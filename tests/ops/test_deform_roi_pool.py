"""Deformable RoI pooling, through mmcv's functions and modules, against plain loops."""

import math

import pytest
import torch
from mmcv.ops import DeformRoIPoolPack, ModulatedDeformRoIPoolPack, deform_roi_pool

from ..helpers.op_references import clamped_bilinear, random, same_with_gradients

ROIS = torch.tensor(
    [
        [0, 3.1, 2.2, 40.3, 30.7],
        [1, -9.0, -7.0, 13.0, 11.0],
        [1, 30.2, 20.7, 70.1, 57.2],  # beyond the map
        [0, 5.0, 5.0, 5.0, 5.0],  # no area
        [0, 20.0, 20.0, 10.0, 10.0],  # less than none
    ],
    dtype=torch.float64,
)


def reference(maps, rois, offset, size, scale, sampling_ratio, gamma):
    """arXiv 1703.06211, equation 5, with the samples of RoIAlign."""
    pooled = []
    for r, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (v * scale - 0.5 for v in box)
        step_y, step_x = (y2 - y1) / size[0], (x2 - x1) / size[1]
        ny = sampling_ratio or max(math.ceil(step_y), 0)
        nx = sampling_ratio or max(math.ceil(step_x), 0)
        for i in range(size[0]):
            for j in range(size[1]):
                top = torch.tensor(y1 + i * step_y, dtype=torch.float64)
                left = torch.tensor(x1 + j * step_x, dtype=torch.float64)
                if offset is not None:
                    top = top + gamma * (y2 - y1) * offset[r, 1, i, j]
                    left = left + gamma * (x2 - x1) * offset[r, 0, i, j]
                total = torch.zeros(maps.shape[1], dtype=maps.dtype)
                for iy in range(ny):
                    for ix in range(nx):
                        y = top + (iy + 0.5) * step_y / ny
                        x = left + (ix + 0.5) * step_x / nx
                        total = total + clamped_bilinear(maps[int(image)], y, x)
                pooled.append(total / max(ny * nx, 1))
    return torch.stack(pooled).view(len(rois), *size, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("moved", [False, True])
def test_deform_roi_pool(sampling_ratio, moved):
    maps = random(2, 3, 12, 16)
    offset = random(len(ROIS), 2, 3, 4, seed=1) if moved else None
    arguments = (3, 4), 0.25, sampling_ratio, 0.1
    expected = reference(maps, ROIS, offset, *arguments)
    leaves = (maps, offset) if moved else (maps,)
    inputs = maps.detach().contiguous(memory_format=torch.channels_last)
    inputs.requires_grad_()
    actual = deform_roi_pool(inputs, ROIS, offset, *arguments)
    same_with_gradients(actual, expected, (inputs, *leaves[1:]), leaves)


def test_gradients_are_those_of_the_forward_pass():
    assert torch.autograd.gradcheck(
        lambda m, o: deform_roi_pool(m, ROIS, o, (3, 4), 0.25, 0, 0.1),
        (random(2, 3, 12, 16), random(len(ROIS), 2, 3, 4, seed=1)),
        fast_mode=True,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_training_dtypes(dtype):
    maps, offset = random(2, 3, 12, 16), random(len(ROIS), 2, 3, 3, seed=1)
    leaves = [t.detach().to(dtype).requires_grad_() for t in (maps, offset)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    rois = ROIS.to(dtype)
    actual = deform_roi_pool(leaves[0], rois, leaves[1], 3, 0.25, 2, 0.1)
    expected = deform_roi_pool(exact[0], rois.double(), exact[1], 3, 0.25, 2, 0.1)
    assert actual.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    same_with_gradients(actual, expected, leaves, exact, tolerance)


@pytest.mark.parametrize("pack", [DeformRoIPoolPack, ModulatedDeformRoIPoolPack])
def test_modules_train(pack):
    module = pack(7, 4, deform_fc_channels=16, spatial_scale=0.25)
    maps = torch.randn(2, 4, 12, 16, requires_grad=True)
    result = module(maps, ROIS.float())
    assert result.shape == (len(ROIS), 4, 7, 7)
    result.square().sum().backward()
    assert maps.grad.isfinite().all()
    assert module.offset_fc[-1].weight.grad.any()


def test_no_rois_and_no_images():
    for images in (0, 1):
        maps = torch.rand(images, 3, 8, 8, requires_grad=True)
        offset = torch.zeros(0, 2, 7, 7, requires_grad=True)
        actual = deform_roi_pool(maps, torch.zeros(0, 5), offset, 7, 0.25, 0, 0.1)
        assert actual.shape == (0, 3, 7, 7)
        actual.sum().backward()
        assert not maps.grad.any()


def test_rois_that_are_not_finite():
    """They do not disturb the others."""
    rois = ROIS[:3].float()
    rois[1, 1:] = float("nan")
    maps, offset = torch.rand(2, 3, 12, 16), torch.rand(3, 2, 7, 7)
    expected = deform_roi_pool(maps, ROIS[:3].float(), offset, 7, 0.25, 0, 0.1)
    actual = deform_roi_pool(maps, rois, offset, 7, 0.25, 0, 0.1)
    assert torch.equal(actual[[0, 2]], expected[[0, 2]])
    assert not actual[1].any()
