"""Multi-scale deformable attention in PyTorch, for any device and float type.

A query's output is a weighted sum of cells. ``embedding_bag`` computes such sums
without an array of all terms. The queries are taken in groups, which bounds the memory.
Half precision is computed in fp32. Nothing waits for a GPU: the levels' sizes stay in
their tensors.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

_CORNERS = 1 << 21  # of all samples of a group: about 100 MB, with gradients 300 MB


@torch.no_grad()
def forward(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """The attention's output (N, Q, M D), in the type of ``value``.

    The arguments' shapes are those of the package's docstring.
    """
    exact = torch.promote_types(value.dtype, torch.float32)
    n, _, heads, channels = value.shape
    out = value.new_empty(n, locations.shape[1], heads * channels)
    value = value.to(exact)
    for group in _groups(locations):
        samples = (t[:, group].to(exact) for t in (locations, weights))
        out[:, group] = _attend(value, shapes, starts, *samples)
    return out


def backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad: Tensor,
    of_value: Tensor,
) -> tuple[Tensor, Tensor]:
    """Add the gradient of ``value`` to ``of_value``, which is fp32 or wider.

    Returns:
        the gradients of ``locations`` and ``weights``.
    """
    exact = torch.promote_types(value.dtype, torch.float32)
    of_locations, of_weights = torch.empty_like(locations), torch.empty_like(weights)
    value = value.detach().to(exact).requires_grad_()
    for group in _groups(locations):
        inputs = [t[:, group].detach().to(exact) for t in (locations, weights)]
        inputs = [value, *(t.requires_grad_() for t in inputs)]
        with torch.enable_grad():
            out = _attend(inputs[0], shapes, starts, *inputs[1:])
        grads = torch.autograd.grad(out, inputs, grad[:, group].to(exact))
        of_value += grads[0]
        of_locations[:, group], of_weights[:, group] = grads[1:]
    return of_locations, of_weights


def _groups(locations: Tensor) -> Iterator[slice]:
    """Slices of the queries, whose samples have about ``_CORNERS`` corners."""
    queries = locations.shape[1]
    corners = 2 * locations[:, :1].numel()
    step = max(1, _CORNERS // corners)
    return (slice(first, first + step) for first in range(0, queries, step))


def _attend(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """The output (N, Q, M D), in the arguments' type, with a graph if they need one."""
    n, cells, heads, channels = value.shape
    sizes = shapes.flip(1).to(locations.dtype)[:, None]  # (L, 1, 2): width, height
    position = locations * sizes - 0.5
    inside = ((position > -1) & (position < sizes)).all(-1)  # also False for NaN
    position = torch.where(inside[..., None], position, 0)
    corner = position.detach().floor()
    after = position - corner
    corner = corner.long()
    height, width = shapes[:, :1], shapes[:, 1:]
    image = torch.arange(n, device=value.device).view(n, 1, 1, 1, 1)
    head = torch.arange(heads, device=value.device).view(heads, 1, 1)
    indices, factors = [], []
    for down in (0, 1):
        for right in (0, 1):
            x, y = corner[..., 0] + right, corner[..., 1] + down
            valid = inside & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            # Corners outside of the map count as 0; their index only has to exist.
            cell = (starts[:, None] + y * width + x).clamp(0, cells - 1)
            indices.append((image * cells + cell) * heads + head)
            across = after[..., 0] if right else 1 - after[..., 0]
            along = after[..., 1] if down else 1 - after[..., 1]
            factors.append(torch.where(valid, weights * across * along, 0))
    bags = weights.shape[:3].numel()
    out = F.embedding_bag(
        torch.stack(indices, -1).view(bags, -1),
        value.reshape(-1, channels),
        per_sample_weights=torch.stack(factors, -1).view(bags, -1),
        mode="sum",
    )
    return out.view(n, -1, heads * channels)
