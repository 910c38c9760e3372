"""Runs the Triton kernels of multi-scale deformable attention."""

from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor
from triton import next_power_of_2

from . import kernels

_MOST_32_BIT = 2**31  # an image's value with fewer numbers has 32-bit offsets


class Tile(NamedTuple):
    """How a kernel divides its work.

    Attributes:
        queries: of a program, a power of two.
        warps: of a program.
    """

    queries: int
    warps: int


def forward_tile(channels: int, points: int) -> Tile:
    """The tile for ``channels`` in a head and ``points`` in a level."""
    return _tile(next_power_of_2(channels) * next_power_of_2(points), 2048)


def backward_tile(channels: int, points: int) -> Tile:
    """Half of ``forward_tile``: each thread has more to hold in its registers."""
    return _tile(next_power_of_2(channels) * next_power_of_2(points), 1024)


def _tile(query: int, numbers: int) -> Tile:
    """As many queries as have ``numbers`` in a tile; ``query`` are those of one."""
    return Tile(max(1, min(16, numbers // query)), 4 if query <= 2048 else 8)


def forward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    tile: Tile | None = None,
) -> Tensor:
    """The attention's output (N, Q, M D), in the type of ``value``.

    The arguments' shapes are those of the package's docstring. Tests and measurements
    choose the tile.
    """
    n, _, heads, channels = value.shape
    out = value.new_empty(n, locations.shape[1], heads * channels)
    tile = tile or forward_tile(channels, locations.shape[4])
    _launch(kernels.forward, (value, shapes, starts, locations, weights, out), tile)
    return out


def backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad: Tensor,
    of_value: Tensor,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """Add the gradient of ``value`` to ``of_value``, contiguous and in fp32.

    Returns:
        the gradients of ``locations`` and ``weights``, contiguous.
    """
    of_locations, of_weights = (
        torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in (locations, weights)
    )
    inputs = value, shapes, starts, locations, weights, grad
    tile = tile or backward_tile(value.shape[3], locations.shape[4])
    _launch(kernels.backward, (*inputs, of_value, of_locations, of_weights), tile)
    return of_locations, of_weights


def _launch(kernel, tensors: tuple[Tensor, ...], tile: Tile) -> None:
    """Run a kernel whose first tensors are value, shapes, starts and locations."""
    value, _, _, locations = tensors[:4]
    n, cells, heads, channels = value.shape
    _, queries, _, levels, points, _ = locations.shape
    cell = tl.int32 if cells * heads * channels < _MOST_32_BIT else tl.int64
    with torch.cuda.device_of(value):  # Triton launches on the current GPU
        kernel[-(-queries // tile.queries), heads, n](
            *(tensor.contiguous() for tensor in tensors),
            *(queries, cells, heads, channels, levels, points),
            *(next_power_of_2(channels), next_power_of_2(points), tile.queries, cell),
            num_warps=tile.warps,
        )
