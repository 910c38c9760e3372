"""A split of custom data, as training, tables and pages use it for both tasks."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from mmengine.structures import BaseDataElement

from .problems import Problems


class Split(Protocol):
    """A split whose files have been checked: ``CocoSplit`` and ``LabelSplit``.

    Attributes:
        name: 'train' or 'val'.
        scope: 'mmdet' or 'mmseg'.
        folder: the folder of the images.
        problems: the problems of the split, also those of files that are left out.
    """

    name: str
    scope: str
    folder: Path
    problems: Problems

    @property
    def source(self) -> str:
        """The format and the files that were read, for the report."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""

    @property
    def files(self) -> list[str]:
        """The image files that can be used, relative to ``folder``."""

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of each image as viewers show it, in pixels."""

    @property
    def objects(self) -> list[Counter[int]] | None:
        """For each image, the number of objects of each label; None for label maps."""

    @property
    def pixels(self) -> list[Counter[int]]:
        """For each image, the number of pixels of each label."""

    @property
    def digests(self) -> list[bytes]:
        """For each image, a digest of the bytes of its file."""

    @property
    def counts(self) -> dict[str, int]:
        """More numbers to show, such as 'crowd regions', by their names."""

    def select(self, indices: Sequence[int], name: str) -> "Split":
        """A split called ``name`` of the images at ``indices``, without problems."""

    def write(self, file: Path) -> None:
        """Write the annotation file that training reads.

        Raises:
            InputError: the file cannot be written.
        """

    def fixed(self, folder: Path) -> Path:
        """Write the cleaned annotations below ``folder``, and return their path.

        Raises:
            InputError: a file cannot be written.
        """

    def sample(self, index: int) -> tuple[np.ndarray, BaseDataElement]:
        """An image (H, W, 3) RGB uint8, and its annotations to draw."""


def totals(counters: Sequence[Counter[int]], number: int) -> np.ndarray:
    """The sum over all images for each of ``number`` labels, (number,) int64."""
    total = np.zeros(number, np.int64)
    for counter in counters:
        for label, count in counter.items():
            total[label] += count
    return total


def images_with(counters: Sequence[Counter[int]], number: int) -> np.ndarray:
    """The number of images that have each of ``number`` labels, (number,) int64."""
    return totals([Counter(counter.keys()) for counter in counters], number)


def same_images(train: Split, val: Split) -> Iterator[str]:
    """The files of ``val`` whose bytes equal those of a file of ``train``."""
    train_digests = set(train.digests)
    for file, digest in zip(val.files, val.digests, strict=True):
        if digest in train_digests:
            yield file
