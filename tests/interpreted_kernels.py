"""The Triton kernels by Triton's interpreter, on the CPU; run by test_triton.py."""

import pytest
import torch
from torch.nn import functional as F

from convnext_dense.fused import depthwise, triton_depthwise, triton_gelu

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# The interpreter takes its time: small images, with edges inside every tile.
CASES = [
    ((1, 8, 1, 1), torch.float32),
    ((1, 40, 3, 9), torch.float32),
    ((2, 12, 1, 3), torch.bfloat16),
    ((1, 12, 2, 9), torch.float16),
]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def layered(*shape, dtype):
    x = torch.randn(shape).to(dtype)
    return x.contiguous(memory_format=torch.channels_last)


def assert_close(mine, true, tolerance):
    assert mine.shape == true.shape
    assert (mine.double() - true).abs().max() <= tolerance * true.abs().max()


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    torch.manual_seed(0)
    # So that a program has several shares, as with a large image.
    monkeypatch.setattr(triton_depthwise, "_SPLITS", 2)
    monkeypatch.setattr(triton_gelu, "_SPLITS", 4)


@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
def test_depthwise(shape, dtype):
    x, probe, channels = layered(*shape, dtype=dtype), None, shape[1]
    probe = layered(*shape, dtype=dtype)
    weight, bias = torch.randn(channels, 1, 7, 7).to(dtype), torch.randn(channels)
    wide = [t.double().requires_grad_() for t in (x, weight)]
    y = F.conv2d(*wide, bias.double(), padding=3, groups=channels)
    of_x, of_weight = torch.autograd.grad(y, wide, probe.double())

    mine = triton_depthwise.convolution(x, weight, bias)
    assert mine.dtype == dtype
    assert mine.is_contiguous(memory_format=torch.channels_last)
    assert_close(mine, y, TOLERANCE[dtype])
    mine = triton_depthwise.input_gradient(probe, weight)
    assert_close(mine, of_x, TOLERANCE[dtype])
    mine = triton_depthwise.weight_gradient(x, probe)
    assert mine.dtype == torch.float32
    assert_close(mine, of_weight, 1e-5)


@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("offset", [0, 30])
def test_convolution_norm(shape, dtype, offset):
    """Also with a mean thirty times the deviation, where a sum of squares is lost."""
    channels = shape[1]
    x = layered(*shape, dtype=dtype)
    weight = torch.randn(channels, 1, 7, 7).to(dtype)
    bias = torch.randn(channels) + offset
    scale, shift = torch.randn(channels), torch.randn(channels)
    arguments = x, weight, bias, scale, shift, 1e-6
    y, u, mean, rstd = triton_depthwise.convolution_norm(*arguments)
    exact = depthwise._convolution_norm(
        *(t.double() if isinstance(t, torch.Tensor) else t for t in arguments)
    )
    assert y.dtype == u.dtype == dtype
    assert_close(u, exact[1], TOLERANCE[dtype])
    assert_close(mean, exact[2], 1e-5)
    assert_close(rstd, exact[3], 1e-4)
    # What is normed is what was stored: its rounding grows with the offset.
    assert_close(y, exact[0], TOLERANCE[dtype] * (3 + offset))


@pytest.mark.parametrize("shape", [(1, 4), (33, 160), (70, 24)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gelu_backward(shape, dtype):
    before, inner = (3 * torch.randn(shape).to(dtype) for _ in range(2))
    leaf = before.double().requires_grad_()
    y = F.gelu(leaf)
    (exact,) = torch.autograd.grad(y, leaf, inner.double())
    wide = torch.empty_like(before)
    summed = triton_gelu.backward_(before, wide, inner)
    assert_close(wide, y, TOLERANCE[dtype])
    assert_close(inner, exact, TOLERANCE[dtype])
    assert_close(summed, inner.double().sum(0), 1e-5)
