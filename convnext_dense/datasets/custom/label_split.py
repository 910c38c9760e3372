"""A split annotated by label maps, one an image."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.structures import PixelData

from convnext_dense.utils import files

from .exif import turn_map
from .label_maps import IGNORED, read_label_map
from .problems import Findings


@dataclass
class LabelPart:
    """A ``Part`` of images and label maps.

    Attributes:
        labels: the folder of the label maps.
        pairs: image and label map, relative to their folders.
        colors: of the colour map, if the label maps are in colours.
        zero: whether 0 is a class.
        turns: orientations by which the label maps are yet to be turned.
    """

    name: str
    folder: Path
    labels: Path
    classes: tuple[str, ...]
    pairs: list[tuple[str, str]]
    sizes: list[tuple[int, int]]
    pixels: list[Counter]
    digests: list[bytes]
    turns: list[int]
    colors: list[list[int]] | None
    zero: bool
    findings: Findings = field(default_factory=Findings)
    scope = "mmseg"
    objects = None

    @property
    def files(self) -> list[str]:
        return [image for image, _ in self.pairs]

    @property
    def counts(self) -> dict[str, int]:
        return {}

    def select(self, indices: Sequence[int], name: str) -> "LabelPart":
        def chosen(values):
            return [values[i] for i in indices]

        return LabelPart(
            name,
            self.folder,
            self.labels,
            self.classes,
            *map(chosen, (self.pairs, self.sizes, self.pixels, self.digests)),
            chosen(self.turns),
            self.colors,
            self.zero,
        )

    def write(self, file: Path) -> None:
        with files.whole(file) as partial:
            partial.write_text(json.dumps(self.pairs, indent=0), encoding="utf-8")

    def fixed(self, folder: Path) -> Path:
        folder = folder / self.name
        for i, (image, _) in enumerate(self.pairs):
            file = (folder / image).with_suffix(".png")
            file.parent.mkdir(parents=True, exist_ok=True)
            with files.whole(file) as partial:
                cv2.imwrite(str(partial), self._label_map(i))
        return folder

    def _label_map(self, index: int) -> np.ndarray:
        """As it is trained on, (H, W) uint8."""
        labels = read_label_map(
            self.labels / self.pairs[index][1], self.colors, self.zero
        )
        known = (labels >= 0) & (labels < len(self.classes))
        labels = np.where(known, labels, IGNORED).astype(np.uint8)
        return turn_map(labels, self.turns[index])

    def sample(self, index: int):
        from mmseg.structures import SegDataSample

        pixels = cv2.imdecode(
            np.fromfile(self.folder / self.pairs[index][0], np.uint8), cv2.IMREAD_COLOR
        )
        labels = torch.from_numpy(self._label_map(index))[None].long()
        return pixels[..., ::-1], SegDataSample(gt_sem_seg=PixelData(data=labels))
