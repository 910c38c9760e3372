"""The convolution of patches against PyTorch's convolution, in float64."""

import pytest
import torch
from torch.nn import functional as F

from convnext_dense.models.fused import PatchConv2d

from ..helpers.comparing import assert_same


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    "shape", [(2, 3, 12, 20), (1, 6, 9, 15), (3, 5, 4, 4)], ids=str
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_equals_conv2d(size, shape, channels_last):
    torch.manual_seed(0)
    conv = PatchConv2d(shape[1], 10, size)
    x = torch.randn(shape)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    mine = conv(x)
    assert mine.is_contiguous(memory_format=torch.channels_last)
    probe = torch.randn(mine.shape)
    inputs = [x, conv.weight, conv.bias]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    expected = F.conv2d(*exact, stride=size)
    for a, b in zip(
        [mine, *torch.autograd.grad(mine, inputs, probe)],
        [expected, *torch.autograd.grad(expected, exact, probe.double())],
        strict=True,
    ):
        assert_same(a, b, 1e-5)


def test_names_and_autocast_are_those_of_conv2d():
    conv = PatchConv2d(3, 8, 4)
    assert {n: tuple(p.shape) for n, p in conv.named_parameters()} == {
        "weight": (8, 3, 4, 4),
        "bias": (8,),
    }
    x = torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        mine = conv(x)
        assert mine.dtype == F.conv2d(x, conv.weight, conv.bias, stride=4).dtype
    assert mine.dtype == torch.bfloat16
    exact = [t.double() for t in (x, conv.weight, conv.bias)]
    # Input, weight and output are rounded to bf16, each by at most 0.4 % of a value.
    assert_same(mine.double(), F.conv2d(*exact, stride=4), 0.02)
