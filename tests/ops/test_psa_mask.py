"""PSA mask, through mmcv's module, against plain loops."""

import pytest
import torch
from mmcv.ops import PSAMask

from ..helpers.op_references import random, same_with_gradients


def reference(masks, kind, size):
    """PSANet, section 3.3: masks around pixels become attention over the map."""
    n, _, h, w = masks.shape
    result = torch.zeros(n, h * w, h * w, dtype=masks.dtype)
    for y in range(h):
        for x in range(w):
            for i in range(size[0]):
                for j in range(size[1]):
                    row = y + i - (size[0] - 1) // 2
                    column = x + j - (size[1] - 1) // 2
                    if 0 <= row < h and 0 <= column < w:
                        places = row * w + column, y * w + x
                        if kind == "distribute":
                            places = places[::-1]
                        result[:, places[0], places[1]] = masks[
                            :, i * size[1] + j, y, x
                        ]
    return result.view(n, h * w, h, w)


@pytest.mark.parametrize("kind", ["collect", "distribute"])
@pytest.mark.parametrize("size", [(3, 3), (9, 7), (3, 9), (2, 4)])
def test_psa_mask(kind, size):
    masks = random(2, size[0] * size[1], 4, 5)
    expected = reference(masks, kind, size)
    inputs = masks.detach().contiguous(memory_format=torch.channels_last)
    inputs.requires_grad_()
    actual = PSAMask(kind, size)(inputs)
    same_with_gradients(actual, expected, [inputs], [masks])
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("images", [0, 1])
def test_training_dtypes(dtype, images):
    masks = torch.randn(images, 9, 4, 5).to(dtype).requires_grad_()
    actual = PSAMask("collect", (3, 3))(masks)
    assert actual.dtype == dtype
    assert torch.equal(actual, reference(masks, "collect", (3, 3)))
    actual.float().sum().backward()
    assert masks.grad.unique().tolist() == ([0, 1] if images else [])
