"""Annotations made on an image as its file stores it, turned as EXIF shows it."""

import numpy as np
from pycocotools import mask as mask_api


def turn_points(points: np.ndarray, orientation: int, width: int, height: int):
    """Points (N, 2) as x, y of a stored image of that size, turned.

    Args:
        orientation: EXIF's, 1 to 8 (CIPA DC-008, tag 0x0112).
    """
    x, y = points[:, 0], points[:, 1]
    left, up = width - x, height - y
    turned = (
        *((x, y), (left, y), (left, up), (x, up)),
        *((y, x), (up, x), (up, left), (y, left)),
    )
    return np.stack(turned[orientation - 1], -1)


def turn_map(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An array (H, W) of a stored image, turned."""
    if orientation >= 5:
        pixels = pixels.T
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def turn_annotation(annotation: dict, orientation: int, width: int, height: int):
    """A COCO annotation of a stored image of that size, turned; a new dict.

    Its ``bbox`` is there; its ``segmentation`` is polygons, RLE or not there.
    """
    x, y, w, h = annotation["bbox"]
    size = (orientation, width, height)
    corners = turn_points(np.array([(x, y), (x + w, y + h)]), *size)
    low, high = corners.min(0), corners.max(0)
    turned = dict(annotation, bbox=[*low.tolist(), *(high - low).tolist()])
    mask = annotation.get("segmentation")
    if isinstance(mask, list):
        turned["segmentation"] = [
            turn_points(np.reshape(polygon, (-1, 2)), *size).reshape(-1).tolist()
            for polygon in mask
        ]
    elif mask:
        if isinstance(mask["counts"], list):
            mask = mask_api.frPyObjects(mask, height, width)
        pixels = np.asfortranarray(turn_map(mask_api.decode(mask), orientation))
        rle = mask_api.encode(pixels)
        turned["segmentation"] = dict(rle, counts=rle["counts"].decode())
    return turned
