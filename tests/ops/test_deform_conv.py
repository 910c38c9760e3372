"""Deformable convolution, through mmcv's functions and modules, against plain loops."""

import itertools

import pytest
import torch
from mmcv.ops import (
    DeformConv2dPack,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    modulated_deform_conv2d,
)

from ..helpers.op_references import bilinear, random, same_with_gradients


def reference(x, offset, weight, mask, bias, stride, padding, dilation, groups, dg):
    """arXiv 1811.11168, equation 1. The sampling points are tensors, so autograd
    gives the gradients."""
    (n, c, _, _), (_, _, kh, kw) = x.shape, weight.shape
    out_h, out_w = offset.shape[2:]
    columns = []
    for image, d, k, i, j in itertools.product(
        *map(range, (n, dg, kh * kw, out_h, out_w))
    ):
        at = (d * kh * kw + k) * 2
        y = i * stride[0] - padding[0] + k // kw * dilation[0]
        x_ = j * stride[1] - padding[1] + k % kw * dilation[1]
        y, x_ = y + offset[image, at, i, j], x_ + offset[image, at + 1, i, j]
        value = bilinear(x[image, d * c // dg : (d + 1) * c // dg], y, x_)
        columns.append(value if mask is None else value * mask[image, at // 2, i, j])
    columns = torch.stack(columns).view(n, dg, kh * kw, out_h, out_w, -1)
    columns = columns.movedim(-1, 2).reshape(n, groups, -1, kh * kw, out_h, out_w)
    weight = weight.view(groups, -1, c // groups, kh * kw)
    result = torch.einsum("goik,ngikyx->ngoyx", weight, columns).flatten(1, 2)
    return result if bias is None else result + bias[:, None, None]


# stride, padding, dilation, groups, deform groups, kernel
GEOMETRIES = [
    ((1, 1), (1, 1), (1, 1), 1, 1, (3, 3)),
    ((2, 1), (1, 0), (1, 2), 2, 2, (3, 2)),
]


def inputs(geometry, seed=0):
    stride, padding, dilation, groups, dg, (kh, kw) = geometry
    h, w = 4, 3
    out_h = (h + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (w + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    x = random(2, 4, h, w, seed=seed)
    offset = (random(2, 2 * dg * kh * kw, out_h, out_w, seed=1) * 1.5).detach()
    weight = random(2, 4 // groups, kh, kw, seed=2)
    mask = random(2, dg * kh * kw, out_h, out_w, seed=3)
    bias = random(2, seed=4)
    return x, offset.requires_grad_(), weight, mask, bias


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_version_1(geometry):
    x, offset, weight, _, _ = inputs(geometry)
    expected = reference(x, offset, weight, None, None, *geometry[:5])
    actual = deform_conv2d(x, offset, weight, *geometry[:5])
    same_with_gradients(actual, expected, *[(x, offset, weight)] * 2)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_version_2(geometry, with_bias):
    x, offset, weight, mask, bias = inputs(geometry)
    bias = bias if with_bias else None
    expected = reference(x, offset, weight, mask, bias, *geometry[:5])
    actual = modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry[:5])
    leaves = (x, offset, weight, mask) + ((bias,) if with_bias else ())
    same_with_gradients(actual, expected, leaves, leaves)


def test_offsets_of_a_larger_map():
    """mmcv reads the first numbers of each image's, as mmdet's DyHead lets it do."""
    geometry = GEOMETRIES[1]
    x, offset, weight, mask, bias = inputs(geometry)
    out_h, out_w = offset.shape[2:]

    def larger(values):
        grown = torch.cat([values.flatten(1), values.flatten(1)], dim=1).detach()
        grown = grown.view(*values.shape[:2], 2 * out_h, out_w)
        return grown.to(memory_format=torch.channels_last).requires_grad_()

    def first(values):
        numbers = values.flatten(1)[:, : values.shape[1] * out_h * out_w]
        return numbers.view(*values.shape[:2], out_h, out_w)

    offsets, masks = larger(offset), larger(mask)
    expected = reference(x, first(offsets), weight, first(masks), bias, *geometry[:5])
    actual = modulated_deform_conv2d(x, offsets, masks, weight, bias, *geometry[:5])
    leaves = (x, offsets, weight, masks, bias)
    same_with_gradients(actual, expected, leaves, leaves)


def test_gradients_are_those_of_the_forward_pass():
    x, offset, weight, mask, bias = inputs(GEOMETRIES[1])
    arguments = GEOMETRIES[1][:5]
    assert torch.autograd.gradcheck(
        lambda *t: deform_conv2d(*t, *arguments), (x, offset, weight), fast_mode=True
    )
    assert torch.autograd.gradcheck(
        lambda *t: modulated_deform_conv2d(*t, *arguments),
        (x, offset, mask, weight, bias),
        fast_mode=True,
    )


@pytest.mark.parametrize("needed", [(0, 1), (2,), (0,), (0, 1, 2)])
def test_gradients_of_some_inputs(needed):
    """The weight's gradient is computed with the others', or alone."""
    x, offset, weight, _, _ = inputs(GEOMETRIES[0])
    leaves = x, offset, weight
    result = deform_conv2d(*leaves, *GEOMETRIES[0][:5])
    probe = torch.randn_like(result)
    every = torch.autograd.grad(result, leaves, probe, retain_graph=True)
    some = torch.autograd.grad(
        result, [leaves[i] for i in needed], probe, retain_graph=True
    )
    for i, grad in zip(needed, some, strict=True):
        assert torch.equal(grad, every[i])
    # Another gradient of the output, for the weight alone, after one for the input.
    torch.autograd.grad(result, [x], probe, retain_graph=True)
    (grad,) = torch.autograd.grad(result, [weight], 2 * probe)
    assert torch.allclose(grad, 2 * every[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_training_dtypes_and_layouts(dtype):
    x, offset, weight, mask, bias = inputs(GEOMETRIES[0])
    tensors = [t.detach().to(dtype) for t in (x, offset, mask, weight, bias)]
    tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
    tensors[1] = tensors[1].mT.contiguous().mT
    leaves = [t.requires_grad_() for t in tensors]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    arguments = GEOMETRIES[0][:5]
    actual = modulated_deform_conv2d(*leaves, *arguments)
    expected = modulated_deform_conv2d(*exact, *arguments)
    assert actual.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}[dtype]
    same_with_gradients(actual, expected, leaves, exact, tolerance)
    actual = deform_conv2d(leaves[0], leaves[1], leaves[3], *arguments)
    expected = deform_conv2d(exact[0], exact[1], exact[3], *arguments)
    same_with_gradients(actual, expected, leaves[:2], exact[:2], tolerance)


@pytest.mark.parametrize("pack", [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_modules_train(pack):
    module = pack(4, 6, 3, padding=1, deform_groups=2)
    x = torch.randn(2, 4, 7, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        module(x).float().square().sum().backward()
    assert module.weight.grad.abs().sum() > 0
    assert module.conv_offset.weight.grad.abs().sum() > 0
    assert x.grad.isfinite().all()


def test_points_that_are_not_finite():
    """Only the outputs whose points are not finite are lost."""
    x, offset, weight, _, _ = inputs(GEOMETRIES[0])
    points = offset.detach().clone()
    points[0, 0, 0, 0] = 1e30
    expected = deform_conv2d(x, offset, weight, *GEOMETRIES[0][:5])
    actual = deform_conv2d(x, points, weight, *GEOMETRIES[0][:5])
    assert torch.equal(actual[1], expected[1])
    assert torch.equal(actual[0, :, 1:], expected[0, :, 1:])
    assert actual.isfinite().all()


def test_no_columns_outlive_the_call():
    """Nothing of the size of the columns is kept for the backward pass."""
    kept = []
    x, offset, weight, _, _ = inputs(GEOMETRIES[0])
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        result = deform_conv2d(x, offset, weight, *GEOMETRIES[0][:5])
    assert sum(kept) == x.numel() + offset.numel() + weight.numel()
    assert all(not buffer.numel() for buffer in result.grad_fn.bufs_)
