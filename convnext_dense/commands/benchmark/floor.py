"""The least time a step can take on a CPU: its matrix products alone."""

from collections.abc import Callable

import torch

from convnext_dense.models.convnext import ConvNeXt
from convnext_dense.models.fused.precision import precision_of


def products(
    ours: ConvNeXt, batch: int, size: tuple[int, int], mode: str, dtype: str
) -> Callable[[], None]:
    """What makes the matrix products of a step and nothing else.

    In training there are three for each of inference: the output, the gradient of
    the input and that of the weight.

    Args:
        ours: the backbone.
        batch: images in a step.
        size: their height and width in pixels.
        mode: inference or training.
        dtype: fp32, or bf16 for autocast.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        work = precision_of(torch.empty(0)).work
    shapes, stride, before = [], 4, None
    for depth, c in zip(ours.depths, ours.channels, strict=True):
        height, width = (side // stride for side in size)
        rows = batch * height * width
        shapes += [(rows, c, 4 * c), (rows, 4 * c, c)] * depth
        shapes += [(rows, 4 * before if before else 48, c)]
        stride, before = 2 * stride, c
    tensors = {
        shape: (torch.rand(shape[:2], dtype=work), torch.rand(shape[1:], dtype=work))
        for shape in set(shapes)
    }

    def multiply():
        for shape in shapes:
            rows, weight = tensors[shape]
            out = rows @ weight
            if mode == "training":
                out @ weight.t()
                rows.t() @ out

    return multiply
