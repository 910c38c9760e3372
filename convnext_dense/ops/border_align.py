"""BorderAlign: the maximum along each side of a box (arXiv 2007.11056, equation 1)."""

import torch
from torch import Tensor

from . import sampling
from .precision import at_least_fp32


def border_align_forward(
    input: Tensor, boxes: Tensor, output: Tensor, argmax_idx: Tensor, pool_size: int
) -> None:
    """Write the maxima along the sides of boxes into ``output``.

    Shapes: input (N, 4 C, H, W), C channels for each side; boxes (N, K, 4) as x1, y1,
    x2, y2 -> output (N, C, K, 4), and in ``argmax_idx`` which of the ``pool_size`` + 1
    points of the side it is. Sides: top, left, bottom, right.
    """
    input, boxes = at_least_fp32(input, boxes)
    image = _images(boxes)
    for side, maps in enumerate(input.chunk(4, 1)):
        best = sampling.at_points(maps, image, *_point(boxes, side, pool_size, 0))
        which = torch.zeros_like(best, dtype=torch.int)
        for point in range(1, pool_size + 1):
            at = _point(boxes, side, pool_size, point)
            value = sampling.at_points(maps, image, *at)
            which.masked_fill_(value > best, point)
            best = torch.where(value > best, value, best)
        shape = (len(boxes), boxes.shape[1], maps.shape[1])
        output[..., side] = best.view(shape).mT
        argmax_idx[..., side] = which.view(shape).mT


def border_align_backward(
    grad_output: Tensor,
    boxes: Tensor,
    argmax_idx: Tensor,
    grad_input: Tensor,
    pool_size: int,
) -> None:
    """Write the gradient of ``border_align_forward`` into ``grad_input``."""
    grad_output, boxes = at_least_fp32(grad_output, boxes)
    image = _images(boxes)
    for side, written in enumerate(grad_input.chunk(4, 1)):
        which = argmax_idx[..., side].mT.flatten(0, 1)  # (N K, C)
        y, x = _point(boxes, side, pool_size, which)
        grads = torch.zeros_like(
            written, dtype=boxes.dtype, memory_format=torch.contiguous_format
        )
        grad = grad_output[..., side].mT.flatten(0, 1)
        sampling.add_at_points(grads, grad, image, y, x)
        written.copy_(grads)


def _images(boxes: Tensor) -> Tensor:
    """The image of each box (N K,)."""
    image = torch.arange(len(boxes), device=boxes.device)
    return image[:, None].expand(-1, boxes.shape[1]).flatten()


def _point(
    boxes: Tensor, side: int, pool_size: int, number: Tensor | int
) -> tuple[Tensor, Tensor]:
    """y and x (N K,) or (N K, C) of a side's points, by their numbers.

    Top and left go from the upper left corner, bottom and right from the lower right.
    """
    boxes = boxes.flatten(0, 1)
    if isinstance(number, Tensor):
        boxes = boxes.unsqueeze(1)
    upper_left, lower_right = boxes[..., :2], boxes[..., 2:]
    x, y = (upper_left if side < 2 else lower_right).unbind(-1)
    step_x, step_y = ((lower_right - upper_left) / pool_size).unbind(-1)
    along = number if side < 2 else -number
    if side % 2:
        return y + step_y * along, x + 0 * number
    return y + 0 * number, x + step_x * along
