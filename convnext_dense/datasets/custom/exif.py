"""Turns annotations made on an image as its file stores it.

Cameras store an image as the sensor sees it, with an EXIF orientation by which
viewers and training turn it (CIPA DC-008, tag 0x0112).
"""

import numpy as np
from pycocotools import mask as mask_api

from convnext_dense.utils.masks import to_bitmap


def turn_points(
    points: np.ndarray, orientation: int, width: int, height: int
) -> np.ndarray:
    """Turn points of a stored image.

    Args:
        points: (N, 2), x and y in pixels.
        orientation: EXIF's, 1 to 8.
        width, height: of the stored image.

    Returns:
        the points in the turned image, (N, 2).
    """
    x, y = points[:, 0], points[:, 1]
    left, up = width - x, height - y
    turned = (
        *((x, y), (left, y), (left, up), (x, up)),
        *((y, x), (up, x), (up, left), (y, left)),
    )
    return np.stack(turned[orientation - 1], -1)


def turn_map(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (H, W) of a stored image; (W, H) for orientations 5 to 8."""
    if orientation >= 5:
        pixels = pixels.T
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def turn_annotation(
    annotation: dict, orientation: int, width: int, height: int
) -> dict:
    """Turn a COCO annotation of a stored image; returns a new dict.

    Args:
        annotation: has a ``bbox``; its ``segmentation`` is polygons, RLE or absent.
        orientation: EXIF's, 1 to 8.
        width, height: of the stored image.
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
        bitmap = turn_map(to_bitmap(mask, height, width), orientation)
        rle = mask_api.encode(np.asfortranarray(bitmap, np.uint8))
        turned["segmentation"] = dict(rle, counts=rle["counts"].decode())
    return turned
