"""Panoptic labels made from instances, and a double of panopticapi."""

import json
import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace

import numpy as np
from PIL import Image

VOID, OFFSET = 0, 256**3


def write_panoptic(data, out, split, images=4):
    """Write panoptic labels for the first images of a split that have objects.

    Objects are things; what is left of an image is grass.

    Args:
        data: folder with ``SPLIT`` and ``annotations/instances_SPLIT.json``.
        out: gets ``annotations/panoptic_SPLIT``, ``.../panoptic_SPLIT.json``, and links
            to the images and instances.
        split: train2017 or val2017.
    """
    from mmdet.datasets import CocoPanopticDataset  # slow to import
    from pycocotools.coco import COCO

    (out / "annotations" / f"panoptic_{split}").mkdir(parents=True)
    instances = data / f"annotations/instances_{split}.json"
    (out / "annotations" / instances.name).symlink_to(instances)
    (out / split).symlink_to(data / split)
    coco = COCO(instances)
    categories = [dict(category, isthing=1) for category in coco.dataset["categories"]]
    stuff = enumerate(CocoPanopticDataset.METAINFO["stuff_classes"], 201)
    categories += [dict(id=number, name=name, isthing=0) for number, name in stuff]
    grass = next(c["id"] for c in categories if c["name"] == "grass-merged")
    content = dict(images=[], annotations=[], categories=categories)
    for image_id in sorted({ann["image_id"] for ann in coco.anns.values()})[:images]:
        image = coco.imgs[image_id]
        ids = np.full((image["height"], image["width"]), 1)
        category_of = {1: grass}
        for number, ann in enumerate(coco.imgToAnns[image_id], 2):
            ids[coco.annToMask(ann) > 0] = 1000 * number
            category_of[1000 * number] = ann["category_id"]
        segments = []
        for number, category in category_of.items():
            rows, columns = np.nonzero(ids == number)
            if not len(rows):
                continue  # other objects cover it
            x, y = int(columns.min()), int(rows.min())
            width, height = int(columns.max()) - x + 1, int(rows.max()) - y + 1
            segments.append(
                dict(
                    id=number,
                    category_id=category,
                    area=len(rows),
                    bbox=[x, y, width, height],
                    iscrowd=0,
                )
            )
        name = image["file_name"].replace(".jpg", ".png")
        colors = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], -1)
        Image.fromarray(colors.astype(np.uint8)).save(
            out / "annotations" / f"panoptic_{split}" / name
        )
        content["images"].append(image)
        content["annotations"].append(
            dict(image_id=image_id, file_name=name, segments_info=segments)
        )
    file = out / f"annotations/panoptic_{split}.json"
    file.write_text(json.dumps(content))


def use_double_of_panopticapi(monkeypatch):
    """Replace panopticapi, which is in no package index, by what mmdet uses of it.

    Panoptic quality is computed as in Kirillov et al. (arXiv 1801.00868), equation 1.
    """
    utils = ModuleType("panopticapi.utils")
    utils.rgb2id = lambda rgb: rgb.astype(np.int64) @ [1, 256, 256**2]
    utils.id2rgb = lambda ids: np.stack(
        [ids % 256, ids // 256 % 256, ids // 256**2], -1
    ).astype(np.uint8)
    evaluation = ModuleType("panopticapi.evaluation")
    evaluation.VOID, evaluation.OFFSET, evaluation.PQStat = VOID, OFFSET, _Quality
    package = ModuleType("panopticapi")
    package.utils, package.evaluation = utils, evaluation
    # A module without a spec would be refused where its presence is checked.
    package.__spec__ = SimpleNamespace(name="panopticapi")
    for module in (package, utils, evaluation):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    from mmdet.evaluation.functional import panoptic_utils
    from mmdet.evaluation.metrics import coco_panoptic_metric

    for module in (panoptic_utils, coco_panoptic_metric):
        for name in ("VOID", "OFFSET", "PQStat"):
            monkeypatch.setattr(module, name, getattr(evaluation, name), raising=False)
        monkeypatch.setattr(module, "rgb2id", utils.rgb2id, raising=False)
        monkeypatch.setattr(module, "id2rgb", utils.id2rgb, raising=False)
    monkeypatch.setattr(coco_panoptic_metric, "panopticapi", package)


class _Quality(defaultdict):
    """Matches and misses by category, as panopticapi's PQStat."""

    def __init__(self):
        super().__init__(lambda: SimpleNamespace(iou=0.0, tp=0, fp=0, fn=0))

    def __iadd__(self, other):
        for category, counts in other.items():
            for name, value in vars(counts).items():
                setattr(self[category], name, getattr(self[category], name) + value)
        return self

    def pq_average(self, categories, isthing):
        """The mean quality of the categories that occur, and each one's."""
        rows = {}
        for number, category in categories.items():
            counts = self[number]
            total = counts.tp + (counts.fp + counts.fn) / 2
            if total and isthing in (None, category["isthing"] == 1):
                rows[number] = dict(
                    pq=counts.iou / total,
                    sq=counts.iou / max(counts.tp, 1),
                    rq=counts.tp / total,
                )
        mean = {
            key: sum(row[key] for row in rows.values()) / max(len(rows), 1)
            for key in ("pq", "sq", "rq")
        }
        return dict(mean, n=len(rows)), rows
