"""Plain references in float64 for the tests of ops."""

import math

import torch


def bilinear(image, y, x):
    """A map (C, H, W) at a point: zero in the padding around it."""
    height, width = image.shape[1:]
    top, left = math.floor(y), math.floor(x)
    value = torch.zeros(len(image), dtype=image.dtype)
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                value = value + weight * image[:, row, column]
    return value


def clamped_bilinear(image, y, x):
    """A map (C, H, W) at a point, by RoIAlign's rule at the border: y and x are
    tensors, and the result is differentiable in them."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(len(image), dtype=image.dtype)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[:, top, left] * (1 - (x - left)) + image[:, top, right] * (x - left)
    lower = image[:, bottom, left] * (1 - (x - left)) + image[:, bottom, right] * (
        x - left
    )
    return upper * (1 - (y - top)) + lower * (y - top)


def random(*shape, seed=0, grad=True):
    """Normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return tensor.requires_grad_(grad)


def same_with_gradients(actual, expected, actual_inputs, expected_inputs, atol=1e-10):
    """Assert that values and gradients agree."""
    assert torch.allclose(actual.double(), expected, rtol=atol, atol=atol)
    probe = torch.randn_like(expected)
    grads = torch.autograd.grad(actual, actual_inputs, probe.to(actual.dtype))
    expected_grads = torch.autograd.grad(expected, expected_inputs, probe)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert torch.allclose(grad.double(), expected_grad, rtol=atol, atol=atol)
