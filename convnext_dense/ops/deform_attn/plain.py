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

# Corners of all samples of a group. Each takes about 40 bytes, with gradients 70: on a
# CPU 90 and 150 MB. A GPU waits for the launches of many small groups.
_CORNERS = 1 << 21
_CORNERS_ON_GPU = 1 << 23


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
    """Slices of the queries, each with as many samples as a group may have."""
    queries = locations.shape[1]
    most = _CORNERS if locations.device.type == "cpu" else _CORNERS_ON_GPU
    corners = 2 * locations[:, :1].numel()
    step = max(1, most // corners)
    return (slice(first, first + step) for first in range(0, queries, step))


def _attend(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """The output (N, Q, M D), in the arguments' type, with a graph if they need one."""
    n, cells, heads, channels = value.shape
    sizes = shapes.flip(1)[:, None]  # (L, 1, 2): width, height
    position = locations * sizes - 0.5
    inside = ((position > -1) & (position < sizes)).all(-1)  # also False for NaN
    position = torch.where(inside[..., None], position, 0)
    before = position.detach().floor()
    after = position - before
    # Two columns and two rows around each sample: (N, Q, M, L, K, 2, 2), x and y first.
    cell = before.long()[..., None] + torch.arange(2, device=value.device)
    valid = (cell >= 0) & (cell < sizes[..., None])
    # Cells outside of the map count as 0; their index only has to exist.
    factor = torch.where(valid, torch.stack([1 - after, after], -1), 0)
    x, y = cell.unbind(-2)
    y = (y * shapes[:, 1:, None]).add_(starts[:, None, None])
    index = (y[..., None] + x[..., None, :]).clamp_(0, cells - 1).mul_(heads)
    head = torch.arange(heads, device=value.device)
    image = torch.arange(n, device=value.device)[:, None, None] * (cells * heads)
    index.add_((image + head)[..., None, None, None, None])
    weights = torch.where(inside, weights, 0)[..., None]
    across, along = factor.unbind(-2)
    factors = (weights * along)[..., None] * across[..., None, :]
    bags = locations.shape[:3].numel()
    out = F.embedding_bag(
        index.view(bags, -1),
        value.reshape(-1, channels),
        per_sample_weights=factors.view(bags, -1),
        mode="sum",
    )
    return out.view(n, -1, heads * channels)
