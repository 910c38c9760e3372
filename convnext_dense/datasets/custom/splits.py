"""One split of somebody's data, as both tasks show it to what works on it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from mmengine.structures import BaseDataElement

from .problems import Findings


class Part(Protocol):
    """A split that has been looked through; ``coco`` and ``label_maps`` make them.

    Attributes:
        name: 'train' or 'val'.
        scope: 'mmdet' or 'mmseg'.
        folder: where the images are.
        classes: their names, by label.
        files: the image files that can be used, relative to ``folder``.
        sizes: their widths and heights, as shown.
        objects: number of objects of each label in each of them; None where
            objects are not told apart.
        pixels: number of pixels of each label in each of them.
        digests: a digest of each file's bytes.
        findings: what is wrong, of the files that cannot be used too.
        counts: what else there is to say, such as 'crowd regions', with numbers.
    """

    name: str
    scope: str
    folder: Path
    classes: tuple[str, ...]
    files: list[str]
    sizes: list[tuple[int, int]]
    objects: list[Counter] | None
    pixels: list[Counter]
    digests: list[bytes]
    findings: Findings
    counts: dict[str, int]

    def select(self, indices: Sequence[int], name: str) -> "Part":
        """The split ``name`` of the images at ``indices``, without findings."""

    def write(self, file: Path) -> None:
        """Write the list of annotations that training reads."""

    def fixed(self, folder: Path) -> Path:
        """Write the cleaned annotations below ``folder``; returns where."""

    def sample(self, index: int) -> tuple[np.ndarray, BaseDataElement]:
        """The image (H, W, 3) RGB uint8, and its annotations to draw."""


def totals(counters: Sequence[Counter], number: int) -> np.ndarray:
    """The sum over images for each of ``number`` labels, int64."""
    total = np.zeros(number, np.int64)
    for counter in counters:
        for label, count in counter.items():
            total[label] += count
    return total


def images_with(counters: Sequence[Counter], number: int) -> np.ndarray:
    """In how many images each of ``number`` labels is, int64."""
    return totals([Counter(counter.keys()) for counter in counters], number)


def same_images(train: Part, val: Part) -> Iterator[str]:
    """Names in ``val`` of images that are in ``train`` too, by content."""
    there = set(train.digests)
    for file, digest in zip(val.files, val.digests, strict=True):
        if digest in there:
            yield file
