"""Reads COCO's masks: polygons and run lengths, as annotation tools write them.

Reading takes time and memory in proportion to the mask's text and its image. What
pycocotools reads has been checked before: it is written in C, trusts sizes and sums,
and reads and writes past the end of memory where they are wrong.
"""

import math

import numpy as np
from pycocotools import mask as mask_api

# A polygon with a coordinate beyond this many times the image's longer side is damaged.
FAR = 10
# pycocotools takes about 100 bytes for each pixel that a polygon's outline passes. The
# longest outline passes as many pixels as the image has, and this many times its sides.
OUTLINE_SIDES = 100
# Of one object. pycocotools merges polygons one by one, each with all before it, and
# takes quadratic time. A few at a time take the time of sorting.
MERGED = 16
MOST_POLYGONS = 1000  # of one object; more are written as run lengths, merged once
# A number of compressed run lengths has groups of 5 bits. pycocotools shifts them in 32
# bits. No image that Pillow or OpenCV opens has a run that takes more groups.
MOST_GROUPS = 6


def finite(values: object) -> list[float] | None:
    """``values`` as finite floats; None if they are not a list of finite numbers.

    Texts of numbers, as some tools write them, are numbers.
    """
    if not isinstance(values, list | tuple):
        return None
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):  # OverflowError: 10**400
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def read_mask(mask, width: int, height: int) -> tuple[list | dict, dict] | None:
    """Read a COCO ``segmentation`` of an image of ``width`` x ``height`` pixels.

    Returns:
        the mask as COCO writes it (polygons, or RLE) and as pycocotools' RLE; None if
        it is damaged or of another size.
    """
    if isinstance(mask, dict):
        return _read_runs(mask, width, height)
    if isinstance(mask, list) and mask:
        return _read_polygons(mask, width, height)
    return None


def _read_runs(mask: dict, width: int, height: int) -> tuple[dict, dict] | None:
    """Read RLE, whose ``counts`` are a list of numbers or a compressed string."""
    counts, pixels = mask.get("counts"), height * width
    if mask.get("size") != [height, width]:
        return None
    if isinstance(counts, str):
        if not _adds_up(decompress(counts, pixels), pixels):
            return None
        compressed = dict(size=[height, width], counts=counts)
        return compressed, compressed
    numbers = finite(counts)
    if not numbers or any(number % 1 for number in numbers):
        return None
    if not _adds_up(np.array(numbers), pixels):
        return None
    runs = dict(size=[height, width], counts=[int(number) for number in numbers])
    return runs, to_rle(runs, height, width)


def _adds_up(runs: np.ndarray | None, pixels: int) -> bool:
    """Whether run lengths are those of an image of so many pixels.

    pycocotools reads and writes past the end of memory where they are not.
    """
    # Where runs of zeros and ones take turns, pixels + 1 runs are all there can be.
    if runs is None or not 0 < len(runs) <= pixels + 1:
        return False
    # The bound of each run keeps the sum from wrapping.
    return runs.min() >= 0 and runs.max() <= pixels and runs.sum() == pixels


def decompress(counts: str, pixels: int) -> np.ndarray | None:
    """Compressed run lengths as numbers, (runs,) int64; None if they are damaged.

    Each run is a signed number in groups of five bits, low ones first, as characters
    from '0' on; from the fourth run on it is the difference to the run two before it
    (pycocotools, maskApi.c, rleFrString).

    >>> decompress("5:3;", 18 + 8)
    array([ 5, 10,  3, 21])
    """
    if not counts.isascii() or len(counts) > MOST_GROUPS * (pixels + 1):
        return None
    groups = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - ord("0")
    if not len(groups) or groups.min() < 0 or groups.max() >= 64:
        return None
    (last,) = np.nonzero(groups < 32)  # the last group of each number
    if not len(last) or last[-1] != len(groups) - 1:
        return None
    lengths = np.diff(last, prepend=-1)
    if lengths.max() > MOST_GROUPS:
        return None
    first = last - lengths + 1
    place = np.arange(len(groups)) - np.repeat(first, lengths)
    runs = np.add.reduceat((groups & 31) << 5 * place, first)
    runs -= (groups[last] & 16 > 0).astype(np.int64) << 5 * lengths
    for start in (1, 2):
        runs[start::2] = runs[start::2].cumsum()
    return runs


def _read_polygons(
    mask: list, width: int, height: int
) -> tuple[list | dict, dict] | None:
    """Read polygons, lists of x, y, x, y, ... in pixels."""
    # Some tools write one polygon where COCO has a list of polygons.
    entries = mask if isinstance(mask[0], list) else [mask]
    far = FAR * max(height, width)
    polygons = []
    for entry in entries:
        polygon = finite(entry)
        if polygon is None or len(polygon) % 2:
            return None
        if polygon and max(max(polygon), -min(polygon)) > far:
            return None
        if len(polygon) >= 6:  # as in mmdet: points and lines have no area
            polygons.append(polygon)
    if not polygons:
        empty = np.zeros((height, width), np.uint8, order="F")
        return [], mask_api.encode(empty)
    longest = height * width + OUTLINE_SIDES * (height + width)
    # The first sum is quick, and never smaller.
    if (
        sum(len(p) * (max(p) - min(p)) for p in polygons) > 2 * longest
        and _outline(polygons) > longest
    ):
        return None
    rle = to_rle(polygons, height, width)
    if len(polygons) > MOST_POLYGONS:
        return dict(size=[height, width], counts=rle["counts"].decode()), rle
    return polygons, rle


def _outline(polygons: list[list[float]]) -> float:
    """The number of pixels that the outlines of polygons pass."""
    lengths = np.array([len(polygon) // 2 for polygon in polygons])
    points = np.reshape(np.concatenate(polygons), (-1, 2))
    following = np.arange(1, len(points) + 1)
    following[lengths.cumsum() - 1] -= lengths  # the first follows the last
    return float(np.abs(points - points[following]).max(1).sum())


def to_rle(mask: list | dict, height: int, width: int) -> dict:
    """pycocotools' RLE of polygons, of uncompressed RLE or of compressed RLE.

    ``read_mask`` has checked the mask.
    """
    if isinstance(mask, list):
        masks = mask_api.frPyObjects(mask, height, width)
        while len(masks) > 1:
            groups = range(0, len(masks), MERGED)
            masks = [mask_api.merge(masks[i : i + MERGED]) for i in groups]
        return masks[0]
    if isinstance(mask["counts"], list):
        return mask_api.frPyObjects(mask, height, width)
    return mask


def to_bitmap(mask: list | dict, height: int, width: int) -> np.ndarray:
    """Polygons, uncompressed RLE or compressed RLE as (H, W) bool."""
    return mask_api.decode(to_rle(mask, height, width)).astype(bool)
