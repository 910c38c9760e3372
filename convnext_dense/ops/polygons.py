"""Areas that convex polygons have in common."""

import torch
from torch import Tensor


def areas(polygons: Tensor) -> Tensor:
    """Signed areas of polygons (..., corners, 2), by the shoelace formula."""
    x, y = polygons.unbind(-1)
    return (x * y.roll(-1, -1) - x.roll(-1, -1) * y).sum(-1) / 2


def common_areas(first: Tensor, second: Tensor) -> Tensor:
    """The area that each pair of convex polygons has in common.

    Sutherland and Hodgman's clipping (1974): the first polygon is cut along each side
    of the second. Its area changes steadily with the corners, so sides that coincide
    but for rounding do no harm.

    Shapes: (P, corners, 2) twice -> (P,).
    """
    turned = areas(second)[:, None, None] < 0
    second = torch.where(turned, second.flip(1), second)
    for side in range(second.shape[1]):
        start = second[:, side, None]
        end = second[:, (side + 1) % second.shape[1], None]
        first = _cut(first, start, end - start)
    return areas(first).abs()


def _cut(polygons: Tensor, start: Tensor, side: Tensor) -> Tensor:
    """What of each polygon (P, n, 2) lies to the left of a line (P, 1, 2).

    Returns:
        polygons of n + 1 corners; the last corner is repeated where there are less.
    """
    to = polygons - start
    left = side[..., 0] * to[..., 1] - side[..., 1] * to[..., 0]  # (P, n)
    after, left_after = polygons.roll(-1, 1), left.roll(-1, 1)
    inside, inside_after = left >= 0, left_after >= 0
    crosses = inside != inside_after
    along = (left / (left - left_after)).where(crosses, 0).unsqueeze(-1)
    crossing = polygons + along * (after - polygons)
    corners = torch.stack((crossing, after), 2).flatten(1, 2)  # (P, 2n, 2)
    rank = torch.stack((crosses, inside_after), 2).flatten(1).cumsum(1)
    slots = torch.arange(1, polygons.shape[1] + 2, device=polygons.device)
    index = torch.searchsorted(rank, slots.minimum(rank[:, -1:]))
    return corners.gather(1, index.unsqueeze(-1).expand(-1, -1, 2))
