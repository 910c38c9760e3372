"""Masked convolution, through mmcv's module, against a whole convolution."""

import pytest
import torch
from mmcv.ops import MaskedConv2d


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
def test_masked_conv(dtype):
    module = MaskedConv2d(4, 6, (3, 5), padding=(1, 2)).to(dtype)
    x = torch.randn(1, 4, 7, 8).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    mask = torch.rand(1, 7, 8) > 0.6
    expected = torch.nn.functional.conv2d(
        x.double(), module.weight.double(), module.bias.double(), padding=(1, 2)
    )
    with torch.no_grad():
        actual = module(x, mask)
    tolerance = torch.finfo(dtype).eps * 16
    assert actual.dtype == dtype
    assert torch.allclose(actual.double(), expected * mask, tolerance, tolerance)


def test_no_pixels():
    with torch.no_grad():
        result = MaskedConv2d(4, 6, 3, padding=1)(
            torch.rand(1, 4, 5, 5), torch.zeros(1, 5, 5)
        )
    assert result.shape == (1, 6, 5, 5)
    assert not result.any()
