"""A split annotated by a COCO file, with what is left after the check."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmengine.structures import InstanceData

from convnext_dense.utils import files
from convnext_dense.utils.images import read_rgb
from convnext_dense.utils.masks import to_bitmap

from .problems import Problems

# A sample to draw has as many objects, and their masks as many pixels, as fit into
# 2 GB and are drawn within seconds.
DRAWN_OBJECTS = 1000
DRAWN_PIXELS = 2**31

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample


@dataclass
class CocoSplit:
    """A ``Split`` of objects with boxes and, if ``has_masks``, masks.

    Attributes:
        categories: ``id`` and ``name`` of each class, by rising id.
        images: ``id``, ``file_name`` below ``folder``, ``width``, ``height``.
        annotations: for each image its annotations, each with ``bbox``, ``area`` and
            ``iscrowd``, and with ``ignore`` if the file says so.
        has_masks: whether each annotation has a ``segmentation``.
        source: the format and the files that were read, for the report.
    """

    name: str
    folder: Path
    categories: list[dict]
    images: list[dict]
    annotations: list[list[dict]]
    has_masks: bool
    digests: list[bytes]
    problems: Problems = field(default_factory=Problems)
    source: str = ""
    scope = "mmdet"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return tuple(category["name"] for category in self.categories)

    @property
    def files(self) -> list[str]:
        """The image files, relative to ``folder``."""
        return [image["file_name"] for image in self.images]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of each image, in pixels."""
        return [(image["width"], image["height"]) for image in self.images]

    @property
    def objects(self) -> list[Counter[int]]:
        """For each image, the number of objects of each label to train on.

        Crowd regions and ignored objects do not count.
        """
        labels = self._labels()
        return [
            Counter(
                labels[annotation["category_id"]]
                for annotation in annotations
                if _is_trained(annotation)
            )
            for annotations in self.annotations
        ]

    @property
    def pixels(self) -> list[Counter[int]]:
        """For each image, the summed areas of the objects of each label."""
        labels = self._labels()
        pixels: list[Counter[int]] = []
        for annotations in self.annotations:
            pixels.append(Counter())
            for annotation in annotations:
                label = labels[annotation["category_id"]]
                pixels[-1][label] += round(annotation["area"])
        return pixels

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of objects, of crowd regions, of ignored objects if there are
        any, and of images without objects."""
        annotations = list(chain.from_iterable(self.annotations))
        ignored = sum("ignore" in annotation for annotation in annotations)
        return {
            "objects": sum(map(_is_trained, annotations)),
            "crowd regions": sum(annotation["iscrowd"] for annotation in annotations),
            **({"ignored objects": ignored} if ignored else {}),
            "images without objects": self.annotations.count([]),
        }

    def _labels(self) -> dict[int, int]:
        """The label of each category id."""
        return {c["id"]: label for label, c in enumerate(self.categories)}

    def select(self, indices: Sequence[int], name: str) -> "CocoSplit":
        """A split called ``name`` of the images at ``indices``, without problems."""
        return CocoSplit(
            name,
            self.folder,
            self.categories,
            [self.images[i] for i in indices],
            [self.annotations[i] for i in indices],
            self.has_masks,
            [self.digests[i] for i in indices],
            source=self.source,
        )

    def write(self, file: Path) -> None:
        """Write a COCO file of the split; annotations are numbered from 1.

        Raises:
            InputError: the file cannot be written.
        """
        annotations = chain.from_iterable(self.annotations)
        content = dict(
            info=dict(description=f"{self.name} split of {self.folder}"),
            licenses=[],
            categories=self.categories,
            images=self.images,
            annotations=[dict(a, id=number) for number, a in enumerate(annotations, 1)],
        )
        with files.whole(file) as partial:
            partial.write_text(json.dumps(content), encoding="utf-8")

    def fixed(self, folder: Path) -> Path:
        """Write the cleaned COCO file into ``folder``, and return its path.

        Raises:
            InputError: the file cannot be written.
        """
        file = folder / f"{self.name}.json"
        self.write(file)
        return file

    def sample(self, index: int) -> tuple[np.ndarray, "DetDataSample"]:
        """An image (H, W, 3) RGB uint8, and its boxes, labels and masks to draw.

        Of very many objects, the first ones are drawn.
        """
        from mmdet.structures import DetDataSample

        image, labels = self.images[index], self._labels()
        drawn = DRAWN_OBJECTS
        if self.has_masks:
            drawn = min(drawn, DRAWN_PIXELS // (image["width"] * image["height"]) + 1)
        annotations = self.annotations[index][:drawn]
        corners = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        truth = InstanceData(
            bboxes=torch.from_numpy(corners),
            labels=torch.tensor(
                [labels[a["category_id"]] for a in annotations], dtype=torch.long
            ),
        )
        if self.has_masks:
            shape = (image["height"], image["width"])
            masks = [to_bitmap(a["segmentation"], *shape) for a in annotations]
            truth.masks = np.array(masks, bool).reshape(-1, *shape)
        rgb = read_rgb(self.folder / image["file_name"])
        return rgb, DetDataSample(gt_instances=truth)


def _is_trained(annotation: dict) -> bool:
    """Whether mmdet trains on an annotation as an object."""
    return not annotation["iscrowd"] and "ignore" not in annotation
