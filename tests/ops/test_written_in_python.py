"""Ops that mmcv 2 writes in Python need no stand-in: they work here."""

import pytest
import torch
from mmcv.ops import (
    CornerPool,
    CrissCrossAttention,
    SAConv2d,
    point_sample,
    rel_roi_point_to_rel_img_point,
)


@pytest.mark.parametrize("mode", ["top", "bottom", "left", "right"])
def test_corner_pool(mode):
    x = torch.randn(1, 2, 4, 5, requires_grad=True)
    axis = 2 if mode in ("top", "bottom") else 3
    flip = [axis] if mode in ("top", "left") else []
    expected = x.flip(flip).cummax(axis).values.flip(flip)
    result = CornerPool(mode)(x)
    assert torch.equal(result, expected)
    result.sum().backward()
    assert x.grad.sum() == x.numel()


def test_criss_cross_attention():
    """CCNet, arXiv 1811.11721, section 3.2: each pixel attends to its row and column,
    and to itself once."""
    module = CrissCrossAttention(16)
    torch.nn.init.ones_(module.gamma.scale)
    x = torch.randn(1, 16, 3, 4)
    with torch.no_grad():
        q, k, v = module.query_conv(x), module.key_conv(x), module.value_conv(x)
        for y in range(3):
            for column in range(4):
                at = [(i, column) for i in range(3) if i != y]
                at += [(y, j) for j in range(4)]
                keys = torch.stack([k[0, :, i, j] for i, j in at])
                values = torch.stack([v[0, :, i, j] for i, j in at])
                weights = (keys @ q[0, :, y, column]).softmax(0)
                expected = weights @ values + x[0, :, y, column]
                actual = module(x)[0, :, y, column]
                assert torch.allclose(actual, expected, atol=1e-5)


def test_point_sampling():
    maps = torch.arange(20.0).view(1, 1, 4, 5)
    points = torch.tensor([[[0.1, 0.125], [0.5, 0.5]]])  # a pixel's centre, the middle
    assert torch.allclose(point_sample(maps, points), torch.tensor([[[0.0, 9.5]]]))
    rois = torch.tensor([[0, 10.0, 20.0, 30.0, 60.0]])
    middle = torch.tensor([[[0.5, 0.5]]])
    actual = rel_roi_point_to_rel_img_point(rois, middle, (100, 200))
    assert torch.allclose(actual, torch.tensor([[[0.1, 0.4]]]))


@pytest.mark.parametrize("use_deform", [False, True])
def test_switchable_atrous_convolution(use_deform):
    module = SAConv2d(8, 8, 3, padding=1, use_deform=use_deform)
    x = torch.randn(1, 8, 7, 6, requires_grad=True)
    result = module(x)
    assert result.shape == x.shape
    result.square().sum().backward()
    assert x.grad.isfinite().all()
    assert module.weight.grad.abs().sum() > 0
    assert module.switch.weight.grad.abs().sum() > 0
