"""What one validation showed, in the words of either task."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import mmcv
import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement

from ..drawing import Drawer


class Picture(NamedTuple):
    """An image, its truth and its prediction, all RGB uint8 (H, W, 3)."""

    name: str
    caption: str
    truth: np.ndarray
    prediction: np.ndarray


class Findings(NamedTuple):
    """
    Args:
        classes: their names.
        columns: headings of ``per_class``; classes are sorted by the first one, the
            last one is how much of the truth is theirs.
        per_class: (classes, columns); NaN where there is nothing to measure.
        matrix: (rows, rows) counts, truth by prediction.
        matrix_rows: the names of both its axes.
        matrix_about: by which rule it counts.
        precision: (classes, 101) at recall 0, 0.01, ... 1 and IoU 0.5, NaN for
            classes without objects; None for segmentation.
        best, worst: pictures, from the best and from the worst on.
        pictures_about: by which measure they were chosen.
        unreadable: how many of the chosen images could not be read again.
    """

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    per_class: np.ndarray
    matrix: np.ndarray
    matrix_rows: tuple[str, ...]
    matrix_about: str
    precision: np.ndarray | None
    best: list[Picture]
    worst: list[Picture]
    pictures_about: str
    unreadable: int


def best_and_worst(
    order: list[int], draw: Callable[[int], Picture | None], count: int = 6
) -> tuple[list[Picture], list[Picture], int]:
    """The ends of ``order`` drawn, none twice; and how many could not be.

    Args:
        order: images, from the worst to the best.
        draw: gives None for an image that cannot be read again.
        count: of each, at most.
    """
    best = order[::-1][: min(count, (len(order) + 1) // 2)]
    worst = order[: min(count, len(order) // 2)]
    drawn = [[draw(number) for number in end] for end in (best, worst)]
    best, worst = (list(filter(None, end)) for end in drawn)
    return best, worst, sum(end.count(None) for end in drawn)


def picture(
    drawer: Drawer, path: str, caption: str, sample: BaseDataElement
) -> Picture | None:
    """``sample``, which is at the size of the image; None if that is not readable."""
    try:
        image = mmcv.imread(path, channel_order="rgb")
    except (OSError, cv2.error):
        return None
    truth, prediction = drawer.truth(image, sample), drawer.prediction(image, sample)
    return Picture(Path(path).name, caption, truth, prediction)


def by_path(dataset: BaseDataset) -> dict[str, int]:
    """The index of each image in ``dataset``."""
    paths = (dataset.get_data_info(index)["img_path"] for index in range(len(dataset)))
    return {path: index for index, path in enumerate(paths)}
