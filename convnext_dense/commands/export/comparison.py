"""Compare the outputs of an exported file with PyTorch's.

A comparison takes, for each image, PyTorch's outputs and the file's. It returns a
``Result``.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Outputs = Sequence[Tensor]
Pairs = Iterable[tuple[Outputs, Outputs]]

# How far maps may differ, relative to the largest value.
MAP_TOLERANCE = 1e-4
# Some models lose more digits in float32. Then maps may differ by ROUNDINGS times the
# rounding error of PyTorch's own maps: those of the file have an error, too, and it may
# happen to be twice as large elsewhere.
ROUNDINGS = 4
MAX_MAP_TOLERANCE = 1e-3
# Boxes with lower scores are not compared: the order of equal scores is arbitrary.
MIN_SCORE = 0.05
BOX_TOLERANCE = 0.5  # pixels
SCORE_TOLERANCE = 1e-3
# The share of an image's boxes that may be missing. Rounding decides which of two
# overlapping boxes with the same score non-maximum suppression keeps.
MISSING_TOLERANCE = 0.02
# The share of a mask's pixels that may differ: pixels at its border.
MASK_TOLERANCE = 0.01


class Result(NamedTuple):
    """Whether the outputs are close enough, and how far they differ in words."""

    close: bool
    text: str


def relative_difference(pairs: Pairs) -> float:
    """The largest difference of maps, relative to the largest value of the first.

    It is NaN if any value is.
    """
    differences = [
        (ours - theirs).abs().max() / ours.abs().max()
        for expected, actual in pairs
        for ours, theirs in zip(expected, actual, strict=True)
    ]
    return torch.stack(differences).max().item()


def maps(pairs: Pairs, rounding: float = 0.0) -> Result:
    """Compare maps by their largest difference, relative to the largest value.

    Args:
        pairs: maps of PyTorch and of a file, for each image.
        rounding: the relative difference of PyTorch's maps from those in float64.
    """
    largest = relative_difference(pairs)
    # max() keeps its first argument if the second is NaN.
    allowed = min(max(MAP_TOLERANCE, ROUNDINGS * rounding), MAX_MAP_TOLERANCE)
    text = f"{largest:.1e} of the largest value ({allowed:.1e} is allowed"
    if rounding:
        text += f"; PyTorch's own rounding error is {rounding:.1e}"
    return Result(largest <= allowed, f"{text})")


class Matches(NamedTuple):
    """Boxes of PyTorch and of a file that belong together.

    Attributes:
        expected: indices of PyTorch's boxes (M,).
        actual: indices of the file's boxes (M,).
        compared: number of PyTorch's boxes with scores above ``MIN_SCORE``.
        missing: how many of these have no counterpart, plus how many of the file's
            boxes have none.
    """

    expected: Tensor
    actual: Tensor
    compared: int
    missing: int


def match(expected: Outputs, actual: Outputs, by_mask: bool = False) -> Matches:
    """Match the boxes of PyTorch and of a file.

    Two boxes match if they have the same label, and if coordinates and scores agree
    within ``BOX_TOLERANCE`` and ``SCORE_TOLERANCE``. With ``by_mask`` their masks
    agree, not their coordinates: a box around a mask moves with a single pixel.

    Args:
        expected: boxes (K, 4), scores (K,) and labels (K,), and what else there is.
        actual: the same of the file; another number of boxes is possible.
    """
    (boxes, scores, labels), (boxes_, scores_, labels_) = expected[:3], actual[:3]
    if by_mask:
        places = _differing(expected[3], actual[3]) / MASK_TOLERANCE
    else:
        places = (boxes[:, None] - boxes_).abs().amax(-1) / BOX_TOLERANCE
    distance = torch.maximum(
        places, (scores[:, None] - scores_).abs() / SCORE_TOLERANCE
    )
    # A comparison with NaN is false: such a box has no counterpart.
    close = (distance <= 1) & (labels[:, None] == labels_)
    distance = distance.masked_fill(~close, torch.inf)
    rows, columns = [], []
    for row in (scores > MIN_SCORE).nonzero()[:, 0].tolist():
        if len(boxes_) and distance[row].min() <= 1:
            column = int(distance[row].argmin())
            distance[:, column] = torch.inf  # a box has one counterpart
            rows.append(row)
            columns.append(column)
    compared = int((scores > MIN_SCORE).sum())
    # A box of the file may have a score that is higher by rounding.
    extra = scores_ > MIN_SCORE + SCORE_TOLERANCE
    extra[columns] = False
    missing = compared - len(rows) + int(extra.sum())
    return Matches(torch.tensor(rows), torch.tensor(columns), compared, missing)


def detections(pairs: Pairs) -> Result:
    """Compare boxes with scores, labels and, if there are any, masks.

    The outputs of an image are boxes (K, 4) in pixels, scores (K,), labels (K,) and
    perhaps masks (K, H, W) as booleans.
    """
    return _detections(pairs, by_mask=False)


def queries(pairs: Pairs) -> Result:
    """Compare boxes with scores and labels, and count queries in another order.

    The outputs of an image are boxes, scores and labels as in ``detections``, and for
    a two-stage detector the cells of its queries (Q,). PyTorch's boxes are those for
    the file's order of queries.
    """
    pairs = list(pairs)
    result = detections([(e[:3], a[:3]) for e, a in pairs])
    if len(pairs[0][0]) == 3:
        return result
    moved = sum(int((e[3] != a[3]).sum()) for e, a in pairs)
    total = sum(len(e[3]) for e, _ in pairs)
    text = f"{moved} of {total} queries have another place by rounding"
    return Result(result.close, f"{result.text}; {text}" if moved else result.text)


def _detections(pairs: Pairs, by_mask: bool) -> Result:
    """Compare objects that ``match`` finds with ``by_mask``."""
    compared = missing = 0
    close = True
    largest = {"pixels": 0.0, "in scores": 0.0}
    for expected, actual in pairs:
        matches = match(expected, actual, by_mask)
        compared += matches.compared
        missing += matches.missing
        close &= matches.missing <= MISSING_TOLERANCE * max(matches.compared, 1)
        if not len(matches.expected):
            continue
        ours = [output[matches.expected] for output in expected]
        theirs = [output[matches.actual] for output in actual]
        differences = {
            "pixels": (ours[0] - theirs[0]).abs().max().item(),
            "in scores": (ours[1] - theirs[1]).abs().max().item(),
        }
        if len(ours) > 3:
            share = (ours[3] != theirs[3]).float().mean((1, 2)).max().item()
            differences["of a mask's pixels"] = share
            close &= share <= MASK_TOLERANCE
        for key, value in differences.items():
            largest[key] = max(largest.get(key, 0.0), value)
    figures = ", ".join(f"{value:.1e} {key}" for key, value in largest.items())
    if close and not compared:
        return Result(
            True,
            f"an unknown amount: no box has a score above {MIN_SCORE} in the made "
            "images. Compare the file with convnext-dense predict on a photograph",
        )
    return Result(
        close,
        f"{figures} ({compared} boxes with scores above {MIN_SCORE} compared, "
        f"{missing} without a counterpart)",
    )


def segments(pairs: Pairs) -> Result:
    """Compare objects by their masks, panoptic maps, or both.

    The outputs of an image are boxes, scores, labels and masks as in ``detections``; a
    panoptic map (H, W); or all five.
    """
    pairs = list(pairs)
    results = []
    if len(pairs[0][0]) != 4:
        shares = [(e[-1] != a[-1]).float().mean().item() for e, a in pairs]
        text = f"{max(shares):.1e} of the pixels of the panoptic map"
        results.append(Result(max(shares) <= MASK_TOLERANCE, text))
    if len(pairs[0][0]) > 1:
        results.append(_detections([(e[:4], a[:4]) for e, a in pairs], by_mask=True))
    return Result(
        all(result.close for result in results),
        " and ".join(result.text for result in results),
    )


def _differing(masks: Tensor, masks_: Tensor) -> Tensor:
    """The share of pixels in which masks differ: (K, H, W), (L, H, W) -> (K, L)."""
    ours, theirs = masks.flatten(1).float(), masks_.flatten(1).float()
    both = ours @ theirs.T
    total = ours.sum(1)[:, None] + theirs.sum(1)
    return (total - 2 * both) / max(ours.shape[1], 1)
