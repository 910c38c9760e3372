"""A split annotated by label maps, one for each image."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmengine.structures import PixelData

from convnext_dense.utils import files
from convnext_dense.utils.images import read_rgb, write_image

from .exif import turn_map
from .label_maps import IGNORED, read_label_map
from .problems import Problems

if TYPE_CHECKING:
    from mmseg.structures import SegDataSample


@dataclass
class LabelSplit:
    """A ``Split`` of images and label maps.

    Attributes:
        labels: the folder of the label maps.
        pairs: image and label map, each relative to its folder.
        pixels: for each image, the number of pixels of each label.
        orientations: for each label map, the EXIF orientation by which it must be
            turned; 1 for a label map that fits the image as viewers show it.
        colors: rows of red, green, blue and class index for label maps in colours;
            None for others.
        zero: whether 0 is a class.
    """

    name: str
    folder: Path
    labels: Path
    classes: tuple[str, ...]
    colors: list[list[int]] | None
    zero: bool
    pairs: list[tuple[str, str]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    pixels: list[Counter[int]] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    orientations: list[int] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)
    scope = "mmseg"
    objects = None

    @property
    def source(self) -> str:
        """The format and the files that were read, for the report."""
        return f"label maps, {self.labels}"

    @property
    def files(self) -> list[str]:
        """The image files, relative to ``folder``."""
        return [image for image, _ in self.pairs]

    @property
    def counts(self) -> dict[str, int]:
        """No more numbers than every split has."""
        return {}

    def select(self, indices: Sequence[int], name: str) -> "LabelSplit":
        """A split called ``name`` of the images at ``indices``, without problems."""
        return LabelSplit(
            name,
            self.folder,
            self.labels,
            self.classes,
            self.colors,
            self.zero,
            [self.pairs[i] for i in indices],
            [self.sizes[i] for i in indices],
            [self.pixels[i] for i in indices],
            [self.digests[i] for i in indices],
            [self.orientations[i] for i in indices],
        )

    def write(self, file: Path) -> None:
        """Write the pairs, which ``LabelMapDataset`` reads, as JSON.

        Raises:
            InputError: the file cannot be written.
        """
        with files.whole(file) as partial:
            partial.write_text(json.dumps(self.pairs, indent=0), encoding="utf-8")

    def fixed(self, folder: Path) -> Path:
        """Write the cleaned label maps, and return their folder below ``folder``.

        Raises:
            InputError: a file cannot be written.
        """
        folder = folder / self.name
        for i, (image, _) in enumerate(self.pairs):
            file = (folder / image).with_suffix(".png")
            file.parent.mkdir(parents=True, exist_ok=True)
            write_image(file, self._label_map(i))
        return folder

    def _label_map(self, index: int) -> np.ndarray:
        """A label map as training reads it, (H, W) uint8."""
        file = self.labels / self.pairs[index][1]
        labels = read_label_map(file, self.colors, self.zero)
        known = (labels >= 0) & (labels < len(self.classes))
        labels = np.where(known, labels, IGNORED).astype(np.uint8)
        return turn_map(labels, self.orientations[index])

    def sample(self, index: int) -> tuple[np.ndarray, "SegDataSample"]:
        """An image (H, W, 3) RGB uint8, and its label map to draw."""
        from mmseg.structures import SegDataSample

        labels = torch.from_numpy(self._label_map(index))[None].long()
        rgb = read_rgb(self.folder / self.pairs[index][0])
        return rgb, SegDataSample(gt_sem_seg=PixelData(data=labels))
