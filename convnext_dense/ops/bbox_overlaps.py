"""Overlaps of boxes."""

from torch import Tensor

from .precision import at_least_fp32


def bbox_overlaps(
    bboxes1: Tensor,
    bboxes2: Tensor,
    ious: Tensor,
    mode: int,
    aligned: bool,
    offset: int,
) -> None:
    """Write the overlaps of boxes into ``ious``.

    Shapes: boxes (M, 4) and (N, 4) as x1, y1, x2, y2 -> (M, N), or (M,) if
    ``aligned``. ``mode`` 0 is the IoU, 1 the intersection over the first box's area.
    With ``offset`` 1 a box includes its last pixel. Two boxes without area have NaN, as
    from the compiled op.
    """
    first, second = at_least_fp32(bboxes1, bboxes2)
    first = first if aligned else first[:, None]
    lower = first[..., :2].maximum(second[..., :2])
    upper = first[..., 2:].minimum(second[..., 2:])
    overlap = (upper - lower + offset).clamp(min=0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2] + offset).prod(-1) for b in (first, second)]
    base = areas[0] + areas[1] - overlap if mode == 0 else areas[0]
    ious.copy_(overlap / base.clamp(min=offset))
