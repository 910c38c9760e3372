"""The lower bound of a step's time on a CPU: its matrix products alone."""

from collections.abc import Callable

import torch

from convnext_dense.models.convnext import ConvNeXt
from convnext_dense.models.fused.precision import precision_of


def matrix_products(
    backbone: ConvNeXt, batch: int, size: tuple[int, int], mode: str, dtype: str
) -> Callable[[], None]:
    """Return a function that computes the matrix products of a step, nothing else.

    Those of inference are the pointwise layers, the stem and the downsample layers. In
    training there are three for each: the output, the gradient of the input and the
    gradient of the weight.

    Args:
        backbone: a ``ConvNeXt``.
        batch: number of images in a step.
        size: height and width of an image in pixels.
        mode: inference or training.
        dtype: fp32, or bf16, which runs under autocast.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        work = precision_of(torch.empty(0)).work
    # (rows, inputs, outputs) of each product; a row is a position of the feature map.
    shapes: list[tuple[int, int, int]] = []
    stride, patch = 4, 4 * 4 * 3  # the stem's patches have 4 x 4 pixels of 3 channels
    for depth, c in zip(backbone.depths, backbone.channels, strict=True):
        height, width = (side // stride for side in size)
        rows = batch * height * width
        shapes += [(rows, c, 4 * c), (rows, 4 * c, c)] * depth
        shapes += [(rows, patch, c)]
        stride, patch = 2 * stride, 2 * 2 * c
    tensors = {
        shape: (torch.rand(shape[:2], dtype=work), torch.rand(shape[1:], dtype=work))
        for shape in set(shapes)
    }

    def multiply() -> None:
        for shape in shapes:
            rows, weight = tensors[shape]
            out = rows @ weight
            if mode == "training":
                out @ weight.t()
                rows.t() @ out

    return multiply
