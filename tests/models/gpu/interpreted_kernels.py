"""The depthwise Triton kernels, run with Triton's interpreter by test_kernels.py."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from convnext_dense.models.fused.gpu.kernels import depthwise

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}
# The interpreter is slow: tiles and maps (N, H, W, C) are small, and neither is a
# multiple of the other.
SMALL_TILE = 2, 8, 32, 1
MAPS = [
    ((1, 1, 1, 8), torch.float32),
    ((2, 2, 9, 12), torch.bfloat16),
    ((1, 3, 5, 12), torch.float32),
    ((1, 2, 3, 40), torch.float16),
]
# FLIP, BIAS, ADD: all for the last map, those that the backbone uses for the others.
FLAGS = list(itertools.product([False, True], [False, True], [0, 1, 2]))
USED = [(False, True, 0), (True, False, 1), (True, False, 2)]
CONVOLUTIONS = [
    (*case, *flags) for case in MAPS for flags in (FLAGS if case == MAPS[-1] else USED)
]


def assert_close(mine, true, tolerance):
    assert mine.shape == true.shape
    assert (mine.double() - true).abs().max() <= tolerance * true.abs().max()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def exact_convolution(x, weight, bias):
    """The truth in float64, with the weight rounded as by autocast. x: (N, H, W, C)."""
    weight = weight.to(x.dtype).double()
    planes = x.double().permute(0, 3, 1, 2)
    y = F.conv2d(planes, weight, bias.double(), padding=3, groups=x.shape[3])
    return y.permute(0, 2, 3, 1)


def tiles_and_blocks(shape, tile):
    n, h, w, channels = shape
    rows, wide, block, _ = tile
    return n * -(-h // rows) * -(-w // wide), -(-channels // block)


def convolve(x, weight, bias, g, wide, y, flip, use_bias, add, tile=SMALL_TILE):
    _, h, w, channels = x.shape
    depthwise.convolution[tiles_and_blocks(x.shape, tile)](
        *(x, weight, bias, g, wide, y, h, w),
        *(channels, flip, use_bias, add, *tile[:3]),
        num_warps=tile[3],
    )


@pytest.mark.parametrize(
    ("shape", "dtype", "flip", "use_bias", "add"), CONVOLUTIONS, ids=str
)
def test_convolution(shape, dtype, flip, use_bias, add):
    """The sum may be written over the map that is added."""
    channels = shape[3]
    x = torch.randn(shape).to(dtype)
    weight = torch.randn(channels, 1, 7, 7)
    if dtype == torch.bfloat16:  # the interpreter truncates to bf16, no GPU does
        weight = weight.to(dtype).float()
    bias = torch.randn(channels) if use_bias else torch.zeros(channels)
    g = torch.randn(shape).to(torch.float32 if add == 2 else dtype)
    turned = weight.flip(2, 3) if flip else weight
    true = exact_convolution(x, turned, bias) + (g.double() if add else 0)

    y = g if add == 1 else torch.full_like(x, torch.nan)
    wide = g if add == 2 else None
    convolve(x, weight, bias, g, wide, y, flip, use_bias, add)
    assert_close(y, true, TOLERANCE[dtype])
    if add == 2:
        assert_close(wide, true, 1e-5)


@pytest.mark.parametrize("add", [1, 2])
def test_sum_to_another_buffer(add):
    x = torch.randn(1, 3, 4, 8).half()
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
        assert torch.equal(y, wide.to(y.dtype))
    else:
        assert wide.isnan().all()


def test_flipped_convolution_is_the_input_gradient():
    """The weight may have 16 bits for a map in fp32."""
    x = torch.randn(1, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    weight, nothing = torch.randn(8, 1, 7, 7).bfloat16(), torch.zeros(8)
    y = exact_convolution(x, weight, nothing)
    probe = torch.randn(y.shape)
    (true,) = torch.autograd.grad(y, x, probe.double())
    mine = torch.full_like(probe, torch.nan)
    convolve(probe, weight, nothing, None, None, mine, True, False, 0)
    assert_close(mine, true, 1e-5)


def exact_weight_gradient(x, grad):
    channels = x.shape[3]
    weight = torch.zeros(channels, 1, 7, 7, dtype=torch.float64, requires_grad=True)
    y = exact_convolution(x.double(), weight, torch.zeros(channels))
    return torch.autograd.grad(y, weight, grad.double())[0]


def weight_gradient(x, grad, splits, tile):
    _, h, w, channels = x.shape
    tiles, blocks = tiles_and_blocks(x.shape, tile)
    partial = torch.full((splits, channels, 49), torch.nan)
    depthwise.weight_gradient[7, blocks, splits](
        *(x, grad, partial, h, w, tiles, splits, channels, *tile[:3]),
        num_warps=tile[3],
    )
    return partial.sum(0).view(channels, 1, 7, 7)


@pytest.mark.parametrize(("shape", "dtype"), MAPS, ids=str)
@pytest.mark.parametrize("splits", [1, 3])
def test_weight_gradient(shape, dtype, splits):
    """Some programs have many tiles, some few, some none."""
    x, grad = (torch.randn(shape).to(dtype) for _ in range(2))
    mine = weight_gradient(x, grad, splits, SMALL_TILE)
    assert_close(mine, exact_weight_gradient(x, grad), 1e-5)


@pytest.mark.parametrize("channels", [6, 8, 64])
def test_tiles_in_use(channels):
    """The tiles, grids and splits in use, on a map that is larger than a tile."""
    x, grad = torch.randn(2, 1, 9, 3, channels)
    weight, bias = torch.randn(channels, 1, 7, 7), torch.randn(channels)
    tile = depthwise.convolution_tile(channels)
    assert depthwise.convolution_grid(*x.shape) == tiles_and_blocks(x.shape, tile)
    y = torch.full_like(x, torch.nan)
    convolve(x, weight, bias, None, None, y, False, True, 0, tile)
    assert_close(y, exact_convolution(x, weight, bias), 1e-5)
    splits = depthwise.weight_gradient_splits(*x.shape, multiprocessors=1)
    mine = weight_gradient(x, grad, splits, tile)
    assert_close(mine, exact_weight_gradient(x, grad), 1e-5)


@pytest.mark.parametrize("shape", [(16, 128, 128, 96), (2, 25, 38, 768), (1, 1, 1, 8)])
def test_splits(shape):
    """Every program has a tile, and a multiprocessor has at most eight programs."""
    tiles, blocks = depthwise.convolution_grid(*shape)
    splits = depthwise.weight_gradient_splits(*shape, multiprocessors=132)
    assert 1 <= splits <= tiles
    assert 7 * blocks * splits <= max(7 * blocks, 8 * 132)
