"""The depthwise convolution and its gradients against PyTorch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from convnext_dense.models.fused import depthwise

SHAPES = [(1, 8, 1, 1), (2, 12, 5, 40), (1, 24, 16, 16), (3, 7, 33, 18), (1, 32, 64, 3)]


def exact(x, weight, bias, probe):
    """The output and the gradients of input and weight."""
    x, weight, bias = (t.double().requires_grad_() for t in (x, weight, bias))
    y = F.conv2d(x, weight, bias, padding=3, groups=len(weight))
    return y, *torch.autograd.grad(y, [x, weight], probe.double())


def largest_error(mine, true):
    return ((mine.double() - true).abs().max() / true.abs().max()).item()


def layered(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


# Sums in fp32: a rounding is 6e-8, and in a sum of n terms, in whatever order, they
# add up to about the root of n of it. Half precision would be wrong by 1e-3.
TOLERANCE = 1e-5
ways = pytest.mark.parametrize("instructions", ["AVX2", "AVX512", ""])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@ways
def test_equals_float64(shape, instructions, monkeypatch):
    """By each way: whichever instructions this machine has, the sums are the same."""
    monkeypatch.setattr(depthwise, "_vector_instructions", lambda: instructions)
    torch.manual_seed(0)
    x, probe, channels = layered(*shape), layered(*shape), shape[1]
    weight, bias = torch.randn(channels, 1, 7, 7), torch.randn(channels)
    y, of_x, of_weight = exact(x, weight, bias, probe)
    for mine, true in (
        (depthwise.convolution(x, weight, bias), y),
        (depthwise.input_gradient(probe, weight), of_x),
    ):
        assert mine.shape == true.shape
        assert largest_error(mine, true) <= TOLERANCE
        assert mine.is_contiguous(memory_format=torch.channels_last)
    mine = depthwise.weight_gradient(x, probe)
    assert mine.shape == weight.shape
    assert largest_error(mine, of_weight) <= TOLERANCE


@ways
def test_weight_gradient_of_a_large_map(instructions, monkeypatch):
    """Sums of 40 000 terms, in many strips."""
    monkeypatch.setattr(depthwise, "_vector_instructions", lambda: instructions)
    torch.manual_seed(0)
    x, probe = layered(1, 8, 200, 200), layered(1, 8, 200, 200)
    weight, bias = torch.randn(8, 1, 7, 7), torch.zeros(8)
    true = exact(x, weight, bias, probe)[2]
    assert largest_error(depthwise.weight_gradient(x, probe), true) <= TOLERANCE


def test_no_images():
    x = layered(0, 8, 9, 9)
    weight = torch.randn(8, 1, 7, 7)
    assert depthwise.convolution(x, weight, weight[:, 0, 0, 0]).shape == x.shape
    assert depthwise.input_gradient(x, weight).shape == x.shape
    assert torch.equal(depthwise.weight_gradient(x, x), torch.zeros_like(weight))
