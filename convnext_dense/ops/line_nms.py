"""NMS of lane lines (CLRNet, arXiv 2203.10350)."""

import torch
from torch import Tensor

from .precision import at_least_fp32

_FIRST_POINT = 5  # the column of the first point's x


def line_nms_forward(
    boxes: Tensor, scores: Tensor, overlap: float, top_k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """NMS of lanes by the mean distance of their points, in pixels.

    A lane goes if its mean distance to a better kept one is below ``overlap``, over the
    rows that both have. Shapes: lanes (N, 5 + P) as two values without use here, start
    y (0 to 1), one more, the number of points, and x in P rows; scores (N,). (The
    compiled op takes the lanes as sorted by their scores in one place.)

    Returns:
        the indices of the kept lanes, best first, then zeros (N,); their number (), at
        most ``top_k``; and which of them, counted from 1, is the last close to each
        lane (N,), 0 for none.
    """
    (boxes,) = at_least_fp32(boxes)
    order = scores.argsort(descending=True)
    close = _close(boxes[order], overlap).cpu()
    left = torch.ones(len(boxes), dtype=torch.bool)
    keep, parent = torch.zeros(2, len(boxes), dtype=torch.long)
    count = 0
    for i in range(len(boxes)):
        if not left[i] or count == top_k:
            continue
        keep[count] = i
        count += 1
        near = close[i].clone()
        near[:i] = False
        left &= ~near
        near[i] = True
        parent[near] = count
    keep[:count] = order.cpu()[keep[:count]]
    parents = torch.empty_like(parent)
    parents[order.cpu()] = parent
    device = boxes.device
    return keep.to(device), torch.tensor(count, device=device), parents.to(device)


def _close(lanes: Tensor, threshold: float) -> Tensor:
    """Which pairs of lanes are close (N, N)."""
    points = lanes[:, _FIRST_POINT:]
    rows = points.shape[1]
    start = (lanes[:, 2].nan_to_num() * (rows - 1) + 0.5).long()
    end = start + lanes[:, 4].nan_to_num().long() - 1
    close = []
    for lane, first, last in zip(points, start, end, strict=True):
        begin, stop = first.maximum(start), last.minimum(end).clamp(max=rows - 1)
        at = torch.arange(rows, device=lanes.device)
        both = (at >= begin[:, None]) & (at <= stop[:, None])
        distance = ((points - lane).abs() * both).sum(1)
        valid = (stop >= begin) & (begin >= 0)
        close.append(valid & (distance < threshold * (stop - begin + 1)))
    return torch.stack(close) if close else lanes.new_zeros(0, 0, dtype=torch.bool)
