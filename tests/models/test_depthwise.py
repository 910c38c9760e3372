"""The depthwise convolution and its gradients against PyTorch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from convnext_dense.models.fused import depthwise

SHAPES = [(1, 8, 1, 1), (2, 12, 5, 40), (1, 24, 16, 16), (3, 7, 33, 18), (1, 32, 64, 3)]


def exact(x, weight, bias, probe, dilation=1):
    """The output and the gradients of input and weight, in float64."""
    x, weight, bias = (t.double().requires_grad_() for t in (x, weight, bias))
    where = dict(padding=3 * dilation, dilation=dilation, groups=len(weight))
    y = F.conv2d(x, weight, bias, **where)
    return y, *torch.autograd.grad(y, [x, weight], probe.double())


def largest_error(mine, true):
    """The largest difference, as a share of the largest true value."""
    return ((mine.double() - true).abs().max() / true.abs().max()).item()


def random_maps(*shape):
    """Random feature maps in channels_last."""
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


# The sums are in fp32. One rounding is 6e-8; the roundings of n terms add up to about
# the root of n times that, in any order. Half precision would be wrong by 1e-3.
TOLERANCE = 1e-5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("by_gradient", [False, True])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_equals_float64(shape, by_gradient, dilation, monkeypatch):
    """Both ways to convolve give the sums, whichever this machine takes."""
    monkeypatch.setattr(depthwise, "_has_avx2_alone", lambda: by_gradient)
    torch.manual_seed(0)
    x, probe, channels = random_maps(*shape), random_maps(*shape), shape[1]
    weight, bias = torch.randn(channels, 1, 7, 7), torch.randn(channels)
    y, of_x, of_weight = exact(x, weight, bias, probe, dilation)
    for mine, true in (
        (depthwise.convolution(x, weight, bias, dilation), y),
        (depthwise.input_gradient(probe, weight, dilation), of_x),
    ):
        assert mine.shape == true.shape
        assert largest_error(mine, true) <= TOLERANCE
        assert mine.is_contiguous(memory_format=torch.channels_last)
    mine = depthwise.weight_gradient(x, probe, dilation)
    assert mine.shape == weight.shape
    assert largest_error(mine, of_weight) <= TOLERANCE


def test_weight_gradient_of_a_large_map():
    """Sums of 40 000 terms, in many strips."""
    torch.manual_seed(0)
    x, probe = random_maps(1, 8, 200, 200), random_maps(1, 8, 200, 200)
    weight, bias = torch.randn(8, 1, 7, 7), torch.zeros(8)
    true = exact(x, weight, bias, probe)[2]
    assert largest_error(depthwise.weight_gradient(x, probe), true) <= TOLERANCE


def test_no_images():
    x = random_maps(0, 8, 9, 9)
    weight = torch.randn(8, 1, 7, 7)
    assert depthwise.convolution(x, weight, weight[:, 0, 0, 0]).shape == x.shape
    assert depthwise.input_gradient(x, weight).shape == x.shape
    assert not depthwise.weight_gradient(x, x).any()
