"""The GPU's Triton kernels by Triton's interpreter; run by test_gpu_kernels.py."""

import pytest
import torch
from torch.nn import functional as F

from convnext_dense.fused.gpu.kernels import depthwise

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}
# The interpreter takes its time: small maps (N, H, W, C), with edges inside of tiles.
MAPS = [
    ((1, 1, 1, 8), torch.float32),
    ((2, 9, 5, 12), torch.float32),
    ((2, 1, 33, 12), torch.bfloat16),
    ((1, 11, 3, 40), torch.float16),
]
CONVOLUTIONS = [
    (flip, bias, add) for flip in (False, True) for bias in (False, True)
    for add in (0, 1, 2)
]  # fmt: skip


def assert_close(mine, true, tolerance):
    assert mine.shape == true.shape
    assert (mine.double() - true).abs().max() <= tolerance * true.abs().max()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def exact_convolution(x, weight, bias):
    """In float64, with the weight rounded as under autocast. x is (N, H, W, C)."""
    weight = weight.to(x.dtype).double()
    planes = x.double().permute(0, 3, 1, 2)
    y = F.conv2d(planes, weight, bias.double(), padding=3, groups=x.shape[3])
    return y.permute(0, 2, 3, 1)


def convolve(x, weight, bias, g, wide, y, flip, use_bias, add):
    n, h, w, channels = x.shape
    rows, columns, block, warps = depthwise.convolution_tile(channels)
    depthwise.convolution[depthwise.convolution_grid(*x.shape)](
        *(x, weight, bias, g, wide, y, h, w),
        *(channels, flip, use_bias, add, rows, columns, block),
        num_warps=warps,
    )


@pytest.mark.parametrize(("flip", "use_bias", "add"), CONVOLUTIONS)
@pytest.mark.parametrize(("shape", "dtype"), MAPS, ids=str)
def test_convolution(shape, dtype, flip, use_bias, add):
    """Each flag with each other; sums go to the buffer of what is added."""
    channels = shape[3]
    x = torch.randn(shape).to(dtype)
    weight = torch.randn(channels, 1, 7, 7)
    bias = torch.randn(channels) if use_bias else torch.zeros(channels)
    g = torch.randn(shape).to(torch.float32 if add == 2 else dtype)
    turned = weight.flip(2, 3) if flip else weight
    true = exact_convolution(x, turned, bias) + (g.double() if add else 0)

    y = torch.full_like(x, torch.nan) if add != 1 else g
    wide = g if add == 2 else None
    convolve(x, weight, bias, g, wide, y, flip, use_bias, add)
    assert_close(y, true, TOLERANCE[dtype])
    if add == 2:
        assert_close(wide, true, 1e-5)
        assert torch.equal(y, wide.to(dtype))


@pytest.mark.parametrize("add", [1, 2])
def test_sum_to_another_buffer(add):
    x = torch.randn(1, 3, 4, 8).bfloat16()
    weight, bias = torch.randn(8, 1, 7, 7).half(), torch.randn(8).bfloat16()
    g = torch.randn(x.shape).to(torch.float32 if add == 2 else x.dtype)
    true = exact_convolution(x, weight, bias) + g.double()
    added, y = g.clone(), torch.full_like(x, torch.nan)
    wide = torch.full(x.shape, torch.nan)
    convolve(x, weight, bias, g, wide, y, False, True, add)
    assert torch.equal(g, added)
    assert_close(y, true, TOLERANCE[x.dtype])
    if add == 2:
        assert_close(wide, true, 1e-5)
    else:
        assert wide.isnan().all()


@pytest.mark.parametrize("size", [(1, 1), (17, 34)], ids=str)
def test_flipped_convolution_is_the_input_gradient(size):
    x = torch.randn(1, *size, 8, dtype=torch.float64, requires_grad=True)
    weight, nothing = torch.randn(8, 1, 7, 7), torch.zeros(8)
    y = exact_convolution(x, weight.double(), nothing)
    probe = torch.randn(y.shape)
    (true,) = torch.autograd.grad(y, x, probe.double())
    mine = torch.full_like(probe, torch.nan)
    convolve(probe, weight, nothing, None, None, mine, True, False, 0)
    assert_close(mine, true, 1e-5)


@pytest.mark.parametrize(("shape", "dtype"), MAPS, ids=str)
@pytest.mark.parametrize("multiprocessors", [1, 100])
def test_weight_gradient(shape, dtype, multiprocessors):
    """With programs that have several tiles, and with one for each."""
    channels = shape[3]
    x, grad = (torch.randn(shape).to(dtype) for _ in range(2))
    weight = torch.randn(channels, 1, 7, 7, dtype=torch.float64, requires_grad=True)
    y = exact_convolution(x.double(), weight, torch.zeros(channels))
    (true,) = torch.autograd.grad(y, weight, grad.double())

    rows, columns, block, warps = depthwise.convolution_tile(channels)
    tiles, blocks = depthwise.convolution_grid(*shape)
    splits = depthwise.weight_gradient_splits(*shape, multiprocessors)
    partial = torch.full((splits, channels, 49), torch.nan)
    depthwise.weight_gradient[7, blocks, splits](
        *(x, grad, partial, shape[1], shape[2], tiles, splits),
        *(channels, rows, columns, block),
        num_warps=warps,
    )
    assert_close(partial.sum(0).view_as(true), true, 1e-5)
