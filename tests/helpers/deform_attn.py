"""Inputs of multi-scale deformable attention, and what is true for them."""

from typing import NamedTuple

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """The arguments of the op, and a gradient of its output."""

    value: Tensor
    shapes: Tensor
    starts: Tensor
    locations: Tensor
    weights: Tensor
    grad: Tensor


def inputs(
    images: int,
    sizes: list[tuple[int, int]],
    queries: int,
    heads: int,
    channels: int,
    points: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Inputs:
    """Random arguments for levels of ``sizes``; some locations are outside the maps.

    No location is near a cell's centre, where the gradient jumps.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = torch.tensor(sizes)
    cells = shapes.prod(1)
    samples = images, queries, heads, len(sizes), points
    corner, after = torch.rand(2, *samples, 2, generator=generator)
    width_height = shapes.flip(1)[:, None]
    corner = (corner * (width_height + 4) - 2).floor()
    random = (
        torch.randn(images, int(cells.sum()), heads, channels, generator=generator),
        (corner + 0.6 + 0.8 * after) / width_height,
        torch.rand(samples, generator=generator),
        torch.randn(images, queries, heads * channels, generator=generator),
    )
    value, locations, weights, grad = (t.to(device, dtype) for t in random)
    starts = cells.cumsum(0) - cells
    return Inputs(value, shapes.to(device), starts.to(device), locations, weights, grad)


def truth(given: Inputs) -> list[Tensor]:
    """The output, and the gradients of value, locations and weights, in float64.

    The bilinear weight of a cell is max(0, 1 - |dx|) max(0, 1 - |dy|), with dx and dy
    the distance of its centre. It is computed for every cell of the map.
    """
    value, locations, weights = (
        t.detach().double().requires_grad_()
        for t in (given.value, given.locations, given.weights)
    )
    out = 0
    for level, (height, width) in enumerate(given.shapes.tolist()):
        first = int(given.starts[level])
        cells = value[:, first : first + height * width].unflatten(1, (height, width))
        near = []
        for axis, size in enumerate((width, height)):
            place = locations[:, :, :, level, :, axis, None] * size - 0.5
            near.append((1 - (place - torch.arange(size).to(place)).abs()).clamp(min=0))
        out = out + torch.einsum(
            "nqmk,nqmkx,nqmky,nyxmd->nqmd", weights[:, :, :, level], *near, cells
        )
    out = out.flatten(2)
    return [
        out.detach(),
        *torch.autograd.grad(out, (value, locations, weights), given.grad.double()),
    ]


def errors(mine: list[Tensor], true: list[Tensor]) -> list[float]:
    """Each tensor's largest error, as a share of the largest true number."""
    for a, b in zip(mine, true, strict=True):
        assert a.shape == b.shape
    return [
        ((a.double() - b).abs().max() / b.abs().max()).item()
        for a, b in zip(mine, true, strict=True)
    ]
