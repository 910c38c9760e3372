"""Reads COCO's masks: polygons and run lengths, as annotation tools write them."""

import math

import numpy as np
from pycocotools import mask as mask_api

# A polygon with a coordinate beyond this many times the image's longer side is damaged.
FAR = 10


def finite(values) -> list[float] | None:
    """``values`` as finite floats; None if they are not a list of finite numbers."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
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
    counts = mask.get("counts")
    if mask.get("size") != [height, width]:
        return None
    if isinstance(counts, str):
        if not _decodes(counts, height * width):
            return None
        compressed = dict(size=[height, width], counts=counts)
        return compressed, compressed
    numbers = finite(counts) if isinstance(counts, list) else None
    if not numbers or any(number < 0 or number % 1 for number in numbers):
        return None
    if sum(numbers) != height * width:
        return None
    runs = dict(size=[height, width], counts=[int(number) for number in numbers])
    return runs, to_rle(runs, height, width)


def _read_polygons(mask: list, width: int, height: int) -> tuple[list, dict] | None:
    """Read polygons, lists of x, y, x, y, ... in pixels."""
    # Some tools write one polygon where COCO has a list of polygons.
    entries = mask if isinstance(mask[0], list) else [mask]
    # pycocotools takes memory in proportion to the length of a polygon's outline.
    far = FAR * max(height, width)
    polygons = []
    for entry in entries:
        polygon = finite(entry)
        if polygon is None or len(polygon) % 2:
            return None
        if any(abs(number) > far for number in polygon):
            return None
        if len(polygon) >= 6:  # as in mmdet: points and lines have no area
            polygons.append(polygon)
    if not polygons:
        empty = np.zeros((height, width), np.uint8, order="F")
        return [], mask_api.encode(empty)
    return polygons, to_rle(polygons, height, width)


def _decodes(counts: str, pixels: int) -> bool:
    """Whether compressed run lengths add up to the number of pixels.

    pycocotools reads past the end of memory where they do not. Each run is a
    signed number in groups of five bits, low ones first, as characters from '0'
    on; from the fourth run on it is the difference to the run two before it
    (pycocotools, maskApi.c, rleFrString).
    """
    runs: list[int] = []
    position = 0
    while position < len(counts):
        value = shift = 0
        more = True
        while more:
            if position == len(counts):
                return False
            group = ord(counts[position]) - 48
            if not 0 <= group < 64:
                return False
            value |= (group & 31) << shift
            shift += 5
            more = bool(group & 32)
            position += 1
            if not more and group & 16:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return bool(runs) and min(runs) >= 0 and sum(runs) == pixels


def to_rle(mask: list | dict, height: int, width: int) -> dict:
    """pycocotools' RLE of polygons, of uncompressed RLE or of compressed RLE."""
    if isinstance(mask, list):
        return mask_api.merge(mask_api.frPyObjects(mask, height, width))
    if isinstance(mask["counts"], list):
        return mask_api.frPyObjects(mask, height, width)
    return mask


def to_bitmap(mask: list | dict, height: int, width: int) -> np.ndarray:
    """Polygons, uncompressed RLE or compressed RLE as (H, W) bool."""
    return mask_api.decode(to_rle(mask, height, width)).astype(bool)
