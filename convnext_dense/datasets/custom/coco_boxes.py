"""Checks boxes: their form, and whether they are in their image."""

from collections.abc import Iterable, Sequence

from convnext_dense.utils.masks import finite

from .problems import Problems, ProblemType, dropped, error, warning

CORNERS = error(
    "boxes that look like two corners: read as COCO's x, y, width, height, many reach "
    "over the image's edge or miss their masks; read as x1, y1, x2, y2, none does",
    "if they are corners, write x1, y1, x2 - x1, y2 - y1",
    fix="clips them to their images",
)
NEGATIVE = dropped(
    "boxes of negative width or height",
    "write bbox as x, y, width, height, not as two corners",
)
OUTSIDE = dropped(
    "boxes outside their image", "write bbox in pixels of the image that image_id names"
)
EMPTY = dropped(
    "boxes below one pixel", "write bbox in pixels, not as fractions from 0 to 1"
)
CLIPPED = warning("boxes that reach over the image's edge", "clipped")

EDGE_TOLERANCE = 1  # pixels by which tools round boxes over the edge; no warning
# The share of boxes that reach over the edge, or that are corners around their masks,
# from which on all are taken for corners. Of real boxes, few reach over an edge, and
# fewer where all could be corners.
LIKE_CORNERS = 0.2
SAME_BOX = 2  # pixels by which the box of a mask and a listed box may differ


def check_corners(
    boxes: Iterable[tuple[str, object, object, tuple[int, int]]], problems: Problems
) -> None:
    """Note boxes that are two corners, if all of a split look so.

    Args:
        boxes: for each object its name, its ``bbox`` and ``segmentation`` in the file,
            and the size of the image on which it was annotated.
        problems: takes ``CORNERS``.
    """
    names, over, around = [], 0, 0
    for name, listed, mask, (width, height) in boxes:
        box = finite(listed)
        if box is None or len(box) != 4:
            continue
        names.append(name)
        x, y, right, bottom = box
        inside = right <= width + EDGE_TOLERANCE and bottom <= height + EDGE_TOLERANCE
        if not (0 <= x < right and 0 <= y < bottom and inside):
            return
        if _is_around(mask, [x, y, x + right, y + bottom]):
            return
        over += max(x + right - width, y + bottom - height) > EDGE_TOLERANCE
        around += _is_around(mask, box)
    if names and max(over, around) >= LIKE_CORNERS * len(names):
        for name in names:
            problems.add(CORNERS, name)


def _is_around(mask: object, corners: Sequence[float]) -> bool:
    """Whether corners are those of the box around a mask's polygons."""
    polygons = mask if isinstance(mask, list) else []
    points = [finite(polygon) or [] for polygon in polygons]
    xs = [x for polygon in points for x in polygon[::2]]
    ys = [y for polygon in points for y in polygon[1::2]]
    if not xs or not ys:
        return False
    around = (min(xs), min(ys), max(xs), max(ys))
    return all(abs(a - b) <= SAME_BOX for a, b in zip(around, corners, strict=True))


def check_box(
    box: Sequence[float], width: int, height: int
) -> tuple[ProblemType | None, list[float] | None]:
    """The problem of a box, if any, and the box clipped to its image.

    The box is None if the object must be left out.

    Args:
        box: x, y, width, height in pixels.
        width, height: of the image, in pixels.
    """
    x, y, w, h = box
    if w < 0 or h < 0:
        return NEGATIVE, None
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + w, float(width)), min(y + h, float(height))
    if right <= left or bottom <= top:
        return (OUTSIDE if w and h else EMPTY), None
    if right - left < 1 or bottom - top < 1:
        return EMPTY, None
    over = max(left - x, top - y, x + w - right, y + h - bottom)
    clipped = [left, top, right - left, bottom - top]
    return (CLIPPED if over > EDGE_TOLERANCE else None), clipped
