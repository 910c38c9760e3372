"""A split annotated by a COCO file, and what is cleaned of it."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as mask_api

from convnext_dense.utils import files
from convnext_dense.utils.masks import to_rle

from .problems import Findings


@dataclass
class CocoPart:
    """A ``Part`` of objects with boxes and, if ``has_masks``, masks.

    Attributes:
        categories: ``id`` and ``name`` of each class, by rising id.
        images: ``id``, ``file_name`` below ``folder``, ``width``, ``height``.
        annotations: of each image, all with ``bbox``, ``area`` and ``iscrowd``.
    """

    name: str
    folder: Path
    categories: list[dict]
    images: list[dict]
    annotations: list[list[dict]]
    has_masks: bool
    digests: list[bytes]
    findings: Findings = field(default_factory=Findings)
    scope = "mmdet"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(category["name"] for category in self.categories)

    @property
    def files(self) -> list[str]:
        return [image["file_name"] for image in self.images]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(image["width"], image["height"]) for image in self.images]

    @property
    def objects(self) -> list[Counter]:
        label = self._labels()
        return [
            Counter(label[a["category_id"]] for a in there if not a["iscrowd"])
            for there in self.annotations
        ]

    @property
    def pixels(self) -> list[Counter]:
        label, pixels = self._labels(), []
        for there in self.annotations:
            pixels.append(Counter())
            for one in there:
                pixels[-1][label[one["category_id"]]] += round(one["area"])
        return pixels

    @property
    def counts(self) -> dict[str, int]:
        everything = [one for there in self.annotations for one in there]
        return {
            "objects": sum(not one["iscrowd"] for one in everything),
            "crowd regions": sum(one["iscrowd"] for one in everything),
            "images without objects": sum(not there for there in self.annotations),
        }

    def _labels(self) -> dict[int, int]:
        return {c["id"]: label for label, c in enumerate(self.categories)}

    def select(self, indices: Sequence[int], name: str) -> "CocoPart":
        return CocoPart(
            name,
            self.folder,
            self.categories,
            [self.images[i] for i in indices],
            [self.annotations[i] for i in indices],
            self.has_masks,
            [self.digests[i] for i in indices],
        )

    def write(self, file: Path) -> None:
        everything = [one for there in self.annotations for one in there]
        content = dict(
            info=dict(description=f"{self.name} split of {self.folder}"),
            licenses=[],
            categories=self.categories,
            images=self.images,
            annotations=[dict(one, id=i) for i, one in enumerate(everything, 1)],
        )
        with files.whole(file) as partial:
            partial.write_text(json.dumps(content), encoding="utf-8")

    def fixed(self, folder: Path) -> Path:
        file = folder / f"{self.name}.json"
        self.write(file)
        return file

    def sample(self, index: int):
        from mmdet.structures import DetDataSample

        image, label = self.images[index], self._labels()
        there = self.annotations[index]
        pixels = cv2.imdecode(
            np.fromfile(self.folder / image["file_name"], np.uint8), cv2.IMREAD_COLOR
        )
        corners = np.array([a["bbox"] for a in there], np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        truth = InstanceData(
            bboxes=torch.from_numpy(corners),
            labels=torch.tensor([label[a["category_id"]] for a in there], dtype=int),
        )
        if self.has_masks:
            shape = (image["height"], image["width"])
            masks = [mask_api.decode(to_rle(a["segmentation"], *shape)) for a in there]
            truth.masks = np.array(masks, bool).reshape(-1, *shape)
        return pixels[..., ::-1], DetDataSample(gt_instances=truth)
