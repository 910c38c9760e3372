"""PSA mask: attention masks around pixels as attention over the whole map.

PSANet (Zhao et al., ECCV 2018, section 3.3, figure 3).
"""

import torch
from torch import Tensor


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Write the masks of ``input`` to their place in the map, zero elsewhere.

    Shapes: input (N, h_mask * w_mask, H, W) -> output (N, H * W, H, W). With
    ``psa_type`` 0 (collect), output [n, j, i] is what the mask of pixel i has for
    pixel j; with 1 (distribute), output [n, i, j] is.
    """
    channel, inside = _channels(
        (h_feature, w_feature),
        (h_mask, w_mask),
        (half_h_mask, half_w_mask),
        input.device,
    )
    places = input.flatten(2).gather(1, channel.expand(num_, -1, -1))
    places = places.masked_fill(~inside, 0)
    output.copy_((places.mT if psa_type else places).view_as(output))


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Write the gradient of ``psamask_forward`` into ``grad_input``
    (N, h_mask * w_mask, H, W)."""
    channel, inside = _channels(
        (h_feature, w_feature),
        (h_mask, w_mask),
        (half_h_mask, half_w_mask),
        grad_output.device,
    )
    grad = grad_output.flatten(2)
    grad = (grad.mT if psa_type else grad).masked_fill(~inside, 0)
    result = torch.zeros_like(grad_input.flatten(2))
    result.scatter_add_(1, channel.expand(num_, -1, -1), grad)
    grad_input.copy_(result.view_as(grad_input))


def _channels(
    feature: tuple[int, int],
    mask: tuple[int, int],
    half: tuple[int, int],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Which channel of pixel i's mask belongs to pixel j.

    Returns:
        the channels (j, i), 0 where the mask of i does not reach j; and whether it
        does, (j, i).
    """
    rows, columns = (torch.arange(size, device=device) for size in feature)
    row = rows[:, None] - rows + half[0]  # (j's, i's)
    column = columns[:, None] - columns + half[1]
    row, column = row[:, None, :, None], column[None, :, None, :]
    inside = (row >= 0) & (row < mask[0]) & (column >= 0) & (column < mask[1])
    channel = (row * mask[1] + column).where(inside, 0)
    return channel.flatten(2).flatten(0, 1), inside.flatten(2).flatten(0, 1)
