"""Recognises label maps whose values were smoothed, as photographs may be.

Resizing with interpolation, drawing with soft edges, and JPEG put values between those
of two classes at their common edge. Such values are no classes.
"""

import cv2
import numpy as np

# Values have large gaps between them if the largest one is at least this many times
# the number of different values.
SPARSE = 4
LEAST_VALUES, LEAST_THIN = 16, 8  # of a label map whose values have no large gaps
INNER = 0.1  # the share of a value's pixels in squares of one value; less is thin


def is_smoothed(numbers: np.ndarray, values: np.ndarray, counts: np.ndarray) -> bool:
    """Whether many values of a label map are found at edges only.

    A value is thin if few of its pixels are in a square of 2 x 2 pixels of that value.
    At least half of the values must be thin, and have less than half of the pixels. In
    label maps whose values have gaps, and may be few, they must also lie between the
    values beside them.

    Args:
        numbers: (H, W) int32.
        values, counts: the different numbers, and their numbers of pixels.
    """
    sparse = values.max() > SPARSE * len(values)
    if len(values) < (4 if sparse else LEAST_VALUES):
        return False
    same = numbers[:-1, :-1] == numbers[1:, 1:]
    same &= numbers[:-1, :-1] == numbers[1:, :-1]
    same &= numbers[:-1, :-1] == numbers[:-1, 1:]
    inner = np.zeros(numbers.shape, bool)
    for down in (0, 1):
        for right in (0, 1):
            height, width = same.shape
            inner[down : down + height, right : right + width] |= same
    inner_counts = np.zeros(len(values), np.int64)
    inner_values, in_squares = np.unique(numbers[inner], return_counts=True)
    inner_counts[np.searchsorted(values, inner_values)] = in_squares
    thin = inner_counts < INNER * counts
    if 2 * thin.sum() < len(values) or 2 * counts[thin].sum() >= counts.sum():
        return False
    if not sparse:
        return bool(thin.sum() >= LEAST_THIN)
    return bool(thin.sum() >= 2 and _lie_between(numbers, values[thin]))


def _lie_between(numbers: np.ndarray, thin: np.ndarray) -> bool:
    """Whether most pixels of the values ``thin`` have lower and higher neighbours."""
    pixels = np.isin(numbers, thin)
    beside = numbers.astype(np.float32)
    square = np.ones((3, 3), np.uint8)
    between = cv2.erode(beside, square) < beside
    between &= beside < cv2.dilate(beside, square)
    return bool(2 * (between & pixels).sum() > pixels.sum())
