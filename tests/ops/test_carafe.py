"""CARAFE, through mmcv's functions and modules, against plain loops."""

import pytest
import torch
from mmcv.ops import carafe, carafe_naive
from mmcv.ops.carafe import CARAFEPack

from convnext_dense import ops

from ..helpers.op_references import random, same_with_gradients


def reference(features, masks, kernel, groups, scale):
    """arXiv 1905.02188, equation 3."""
    n, c, h, w = features.shape
    rows = []
    for image in range(n):
        for channel in range(c):
            group = channel // (c // groups)
            for y in range(h * scale):
                for x in range(w * scale):
                    total = torch.zeros((), dtype=features.dtype)
                    for k in range(kernel**2):
                        row = y // scale + k // kernel - kernel // 2
                        column = x // scale + k % kernel - kernel // 2
                        if 0 <= row < h and 0 <= column < w:
                            weight = masks[image, group * kernel**2 + k, y, x]
                            value = features[image, channel, row, column]
                            total = total + weight * value
                    rows.append(total)
    return torch.stack(rows).view(n, c, h * scale, w * scale)


@pytest.mark.parametrize(
    ("kernel", "groups", "scale"), [(3, 1, 2), (5, 2, 1), (3, 2, 3), (1, 1, 2)]
)
def test_carafe(kernel, groups, scale):
    features = random(2, 4, 3, 2)
    masks = random(2, groups * kernel**2, 3 * scale, 2 * scale, seed=1)
    expected = reference(features, masks, kernel, groups, scale)
    actual = carafe(features, masks, kernel, groups, scale)
    same_with_gradients(actual, expected, *[(features, masks)] * 2)
    naive = carafe_naive(features, masks, kernel, groups, scale)
    assert torch.equal(naive, actual)


def test_naive_backward():
    """mmcv calls it on a GPU only."""
    features, masks = random(1, 4, 3, 3), random(1, 9, 6, 6, seed=1)
    result = carafe(features, masks, 3, 1, 2)
    probe = torch.randn_like(result)
    expected = torch.autograd.grad(result, (features, masks), probe)
    grads = torch.zeros_like(features), torch.zeros_like(masks)
    ops.carafe_naive_backward(probe, features.detach(), masks.detach(), *grads, 3, 1, 2)
    assert all(map(torch.equal, grads, expected))


def test_gradients_are_those_of_the_forward_pass():
    assert torch.autograd.gradcheck(
        lambda f, m: carafe(f, m, 3, 2, 2),
        (random(1, 4, 3, 4), random(1, 18, 6, 8, seed=1)),
        fast_mode=True,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_training_dtypes_and_layouts(dtype):
    features, masks = random(2, 4, 5, 6), random(2, 25, 10, 12, seed=1)
    leaves = [
        t.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        for t in (features, masks)
    ]
    leaves = [t.requires_grad_() for t in leaves]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    actual, expected = carafe(*leaves, 5, 1, 2), carafe(*exact, 5, 1, 2)
    assert actual.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}[dtype]
    same_with_gradients(actual, expected, leaves, exact, tolerance)


def test_autocast_computes_in_fp32():
    features, masks = torch.randn(1, 8, 6, 6), torch.randn(1, 9, 12, 12)
    expected = carafe(features, masks, 3, 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(carafe(features, masks, 3, 1, 2), expected)


def test_no_images():
    features = torch.zeros(0, 4, 3, 3, requires_grad=True)
    result = carafe(features, torch.zeros(0, 9, 6, 6), 3, 1, 2)
    assert result.shape == (0, 4, 6, 6)
    result.sum().backward()
    assert features.grad.shape == features.shape


def test_module_trains():
    module = CARAFEPack(8, 2)
    x = torch.randn(1, 8, 5, 4, requires_grad=True)
    result = module(x)
    assert result.shape == (1, 8, 10, 8)
    result.square().sum().backward()
    assert module.content_encoder.weight.grad.abs().sum() > 0
