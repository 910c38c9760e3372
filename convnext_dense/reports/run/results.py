"""The results of one validation, in the same form for both tasks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement

from convnext_dense.errors import InputError
from convnext_dense.utils.images import read_rgb

from ..drawing import Drawer

PICTURES = 6  # best images, and as many worst images, at most

T = TypeVar("T")


class Picture(NamedTuple):
    """An image with its truth and with its prediction, both RGB uint8 (H, W, 3)."""

    name: str
    caption: str
    truth: np.ndarray
    prediction: np.ndarray


class ValidationResults(NamedTuple):
    """The results of one validation.

    Attributes:
        classes: the names of the classes.
        columns: the headings of ``per_class``. The page sorts classes by the first
            column; the last one is how much of the truth a class has.
        per_class: (classes, columns); NaN where a class has no truth to measure.
        matrix: confusion counts (N, N), truth by prediction.
        matrix_names: the N names of the rows and columns of ``matrix``.
        matrix_note: how ``matrix`` counts, as a sentence.
        precision: (classes, 101) at recall 0, 0.01, ... 1 and IoU 0.5, NaN for
            classes without objects; None for segmentation.
        best: pictures of the best images, the best first.
        worst: pictures of the worst images, the worst first.
        measure: the measure by which images are best or worst.
        unreadable: the number of those images that could not be read again.
    """

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    per_class: np.ndarray
    matrix: np.ndarray
    matrix_names: tuple[str, ...]
    matrix_note: str
    precision: np.ndarray | None
    best: list[Picture]
    worst: list[Picture]
    measure: str
    unreadable: int


def best_and_worst(
    order: Sequence[int], draw: Callable[[int], T | None], count: int = PICTURES
) -> tuple[list[T], list[T], int]:
    """Draw the best and the worst images; no image is among both.

    Args:
        order: the images, from the worst to the best.
        draw: returns None for an image that cannot be read again.
        count: the number of best images and of worst images, at most.

    Returns:
        the best, the worst, and how many could not be read.
    """
    best = order[::-1][: min(count, (len(order) + 1) // 2)]
    worst = order[: min(count, len(order) // 2)]
    drawn_best, drawn_worst = ([draw(image) for image in end] for end in (best, worst))
    unreadable = drawn_best.count(None) + drawn_worst.count(None)
    return (
        [picture for picture in drawn_best if picture is not None],
        [picture for picture in drawn_worst if picture is not None],
        unreadable,
    )


def draw_picture(
    drawer: Drawer, path: str, caption: str, sample: BaseDataElement
) -> Picture | None:
    """Draw the truth and the prediction of a sample into its image.

    Args:
        path: the image file.
        sample: truth and prediction, at the size of the image.

    Returns:
        None if the file cannot be read, or is too large to draw.
    """
    try:
        image = read_rgb(Path(path))
        truth = drawer.truth(image, sample)
        prediction = drawer.prediction(image, sample)
    except InputError:
        return None
    return Picture(Path(path).name, caption, truth, prediction)


def index_by_path(dataset: BaseDataset) -> dict[str, int]:
    """The index of each image file in ``dataset``."""
    paths = (dataset.get_data_info(index)["img_path"] for index in range(len(dataset)))
    return {path: index for index, path in enumerate(paths)}
