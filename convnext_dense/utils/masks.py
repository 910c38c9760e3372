"""COCO's masks: polygons and run lengths, as other people wrote them."""

import math

import numpy as np
from pycocotools import mask as mask_api

FAR = 10  # times the image's size; no polygon reaches there by a slip of the hand


def finite(values) -> list[float] | None:
    """``values`` as finite floats; None if they are none."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def read_mask(mask, width: int, height: int):
    """A ``segmentation`` as COCO writes it, and as RLE; two None if it is damaged."""
    damaged = None, None
    if isinstance(mask, dict):
        counts = mask.get("counts")
        if mask.get("size") != [height, width] or not isinstance(counts, list | str):
            return damaged
        mask = dict(size=[height, width], counts=counts)
        if isinstance(counts, list):
            numbers = finite(counts)
            if not numbers or any(n < 0 or n % 1 for n in numbers):
                return damaged
            mask["counts"] = [int(number) for number in numbers]
            if sum(mask["counts"]) != height * width:
                return damaged
            return mask, to_rle(mask, height, width)
        return (mask, mask) if _decodes(counts, height * width) else damaged
    if not isinstance(mask, list):
        return damaged
    # One polygon not in a list of polygons is a frequent slip.
    polygons = [mask] if not isinstance(mask[0], list) else mask
    polygons = [finite(polygon) for polygon in polygons]
    if any(polygon is None or len(polygon) % 2 for polygon in polygons):
        return damaged
    # pycocotools takes as much memory as a polygon is long.
    far = FAR * max(height, width)
    if any(abs(number) > far for polygon in polygons for number in polygon):
        return damaged
    # As mmdet does: points and lines have no area.
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        return [], mask_api.encode(np.zeros((height, width), np.uint8, order="F"))
    return polygons, to_rle(polygons, height, width)


def _decodes(counts: str, pixels: int) -> bool:
    """Whether compressed run lengths add up to the image.

    pycocotools reads past the end of memory where they do not. Each run is a
    signed number in groups of five bits, low ones first, as characters from '0'
    on; from the fourth run on it is the difference to the run two before it
    (pycocotools, maskApi.c, rleFrString).
    """
    runs, position = [], 0
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
    """pycocotools' RLE of polygons, of COCO's uncompressed or of compressed RLE."""
    if isinstance(mask, list):
        return mask_api.merge(mask_api.frPyObjects(mask, height, width))
    if isinstance(mask["counts"], list):
        return mask_api.frPyObjects(mask, height, width)
    return mask
