"""BorderAlign, through mmcv's function, against plain loops."""

import pytest
import torch
from mmcv.ops import border_align

from ..helpers.op_references import clamped_bilinear, random, same_with_gradients

BOXES = torch.tensor(
    [
        [[0.0, 0.0, 4.0, 3.0], [1.3, 0.2, 6.9, 4.1], [-5.0, -5.0, 20.0, 20.0]],
        [[2.0, 2.0, 2.0, 2.0], [5.5, 1.1, 1.2, 3.3], [-0.4, -0.3, 6.2, 4.4]],
    ],
    dtype=torch.float64,
)


def reference(maps, boxes, pool_size):
    """arXiv 2007.11056, equation 1."""
    n, channels = len(maps), maps.shape[1] // 4
    pooled = []
    for image in range(n):
        for x1, y1, x2, y2 in boxes[image].tolist():
            sides = ((x1, y1, x2, y1), (x1, y1, x1, y2))
            sides += ((x2, y2, x1, y2), (x2, y2, x2, y1))
            for side, (xa, ya, xb, yb) in enumerate(sides):
                values = []
                for i in range(pool_size + 1):
                    y = torch.tensor(ya + (yb - ya) / pool_size * i).double()
                    x = torch.tensor(xa + (xb - xa) / pool_size * i).double()
                    of_side = maps[image, side * channels : (side + 1) * channels]
                    values.append(clamped_bilinear(of_side, y, x))
                pooled.append(torch.stack(values).max(0).values)
    return torch.stack(pooled).view(n, -1, 4, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("pool_size", [1, 5])
def test_border_align(pool_size):
    maps = random(2, 12, 5, 7)
    inputs = maps.detach().contiguous(memory_format=torch.channels_last)
    inputs.requires_grad_()
    expected = reference(maps, BOXES, pool_size)
    actual = border_align(inputs, BOXES, pool_size)
    same_with_gradients(actual, expected, [inputs], [maps], 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_training_dtypes(dtype):
    maps = random(2, 12, 5, 7).detach().to(dtype).requires_grad_()
    actual = border_align(maps, BOXES.to(dtype), 4)
    expected = border_align(maps.double(), BOXES.to(dtype).double(), 4)
    assert actual.dtype == dtype
    assert torch.allclose(actual.double(), expected, rtol=1e-2, atol=1e-2)
    actual.float().sum().backward()
    assert maps.grad.abs().sum() > 0


def test_no_boxes():
    maps = torch.rand(2, 4, 5, 5, requires_grad=True)
    result = border_align(maps, torch.zeros(2, 0, 4), 3)
    assert result.shape == (2, 1, 0, 4)
    result.sum().backward()
    assert not maps.grad.any()
