"""Writes objects and segments to json files in COCO's formats, image by image."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.structures import BaseDataElement

from convnext_dense.utils import files

from .class_filter import PANOPTIC_OFFSET
from .writing import make_folder, write_picture

# COCO numbers its 80 categories 1 to 90, and the 53 categories of stuff in its panoptic
# annotations 92 to 200 (panopticapi, panoptic_coco_categories.json).
_COCO_IDS = sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
_STUFF_IDS = [
    *(92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141),
    *(144, 145, 147, 148, 149, 151, 154, 155, 156, 159, 161, 166, 168, 171, 175, 176),
    *(177, 178, 180, 181, *range(184, 201)),
]


def categories(dataset_meta: dict, things: int | None = None) -> list[dict]:
    """The COCO categories of the classes: their ids and names.

    Args:
        dataset_meta: has ``classes``, and may have ``category_ids``.
        things: of a panoptic model, how many of the first classes are things. The
            categories then have ``isthing``.
    """
    classes = dataset_meta["classes"]
    ids = dataset_meta.get("category_ids")
    if not ids or len(ids) != len(classes):
        from mmdet.datasets import CocoDataset, CocoPanopticDataset

        known = {
            tuple(CocoDataset.METAINFO["classes"]): _COCO_IDS,
            tuple(CocoPanopticDataset.METAINFO["classes"]): _COCO_IDS + _STUFF_IDS,
        }
        ids = known.get(tuple(classes), range(1, len(classes) + 1))
    result = [dict(id=i, name=name) for i, name in zip(ids, classes, strict=True)]
    if things is not None:
        for label, category in enumerate(result):
            category["isthing"] = int(label < things)
    return result


class CocoFiles:
    """Writes the json files, each from the first image on that has something for it.

        images.json        the images, and the categories
        predictions.json   the objects, as COCO results
        panoptic.json      the segments of a panoptic model, as COCO's panoptic results
        panoptic/          their PNGs: the segment of each pixel

    Args:
        out: the folder.
        categories: as ``categories`` returns them.
    """

    def __init__(self, out: Path, categories: list[dict]):
        self._out = out
        self._categories = categories
        self._lists: dict[str, _JsonList] = {}

    def add(self, image: dict, sample: BaseDataElement, still: str) -> None:
        """Add an image and its objects, segments or both.

        Args:
            image: a COCO record.
            sample: has ``pred_instances`` or ``pred_panoptic_seg``.
            still: name of the image for the PNG of its segments, without the suffix.
        """
        head = json.dumps(dict(categories=self._categories, annotations=[]))
        self._list("images", f'{head[:-1]}, "images": [', "]}").add(image)
        if "pred_instances" in sample:
            predictions = self._list("predictions", "[", "]")
            for result in self._results(image["id"], sample.pred_instances):
                predictions.add(result)
        if "pred_panoptic_seg" in sample:
            segments = sample.pred_panoptic_seg.sem_seg.squeeze(0).numpy()
            head = json.dumps(dict(categories=self._categories))
            panoptic = self._list("panoptic", f'{head[:-1]}, "annotations": [', "]}")
            panoptic.add(self._segments(image["id"], segments, f"{still}.png"))

    def _list(self, name: str, head: str, tail: str) -> "_JsonList":
        """The json file of that name, which begins with ``head``."""
        if name not in self._lists:
            self._lists[name] = _JsonList(self._out / f"{name}.json", head, tail)
        return self._lists[name]

    def _results(self, image_id: int, instances: BaseDataElement) -> Iterator[dict]:
        """Yield an image's COCO results."""
        boxes = instances.bboxes.numpy().astype(float)
        boxes[:, 2:] -= boxes[:, :2]
        masks = instances.get("masks")
        if hasattr(masks, "cpu"):  # of a large image they are encoded already
            from mmdet.structures.mask import encode_mask_results

            masks = encode_mask_results(masks.numpy())
        for index, (box, label, score) in enumerate(
            zip(boxes, instances.labels, instances.scores, strict=True)
        ):
            result = dict(
                image_id=image_id,
                category_id=self._categories[label]["id"],
                bbox=box.tolist(),
                score=float(score),
            )
            if masks is not None:
                counts = masks[index]["counts"].decode()
                result["segmentation"] = dict(masks[index], counts=counts)
            yield result

    def _segments(self, image_id: int, ids: np.ndarray, file_name: str) -> dict:
        """Write the PNG of an image's segments; return its panoptic annotation.

        As in COCO's panoptic format (cocodataset.org, "Data format"), the colour of a
        segment is its number, red + 256 green + 256^2 blue, and 0 is no segment.

        Args:
            ids: (H, W) mmdet's ids: label + 1000 * instance.
        """
        numbers = np.zeros(ids.shape, np.uint32)
        infos: list[dict] = []
        for value in np.unique(ids):
            label = int(value) % PANOPTIC_OFFSET
            if label >= len(self._categories):
                continue  # no segment
            mask = ids == value
            numbers[mask] = len(infos) + 1
            (rows,), (columns,) = (np.nonzero(mask.any(axis)) for axis in (1, 0))
            x, y = int(columns[0]), int(rows[0])
            width, height = int(columns[-1]) - x + 1, int(rows[-1]) - y + 1
            infos.append(
                dict(
                    id=len(infos) + 1,
                    category_id=self._categories[label]["id"],
                    area=int(mask.sum()),
                    bbox=[x, y, width, height],
                    iscrowd=0,
                )
            )
        colors = np.stack([numbers >> shift & 255 for shift in (0, 8, 16)], -1)
        write_picture(self._out / "panoptic" / file_name, colors.astype(np.uint8))
        return dict(image_id=image_id, file_name=file_name, segments_info=infos)

    def close(self) -> None:
        """Complete the files."""
        for json_list in self._lists.values():
            json_list.close()


class _JsonList:
    """Writes a JSON list record by record. The file appears when it is closed.

    Args:
        path: the file.
        head: text before the first record.
        tail: text after the last record.
    """

    def __init__(self, path: Path, head: str, tail: str):
        self._tail = tail
        self._open = contextlib.ExitStack()
        make_folder(path.parent)
        partial = self._open.enter_context(files.whole(path))
        self._file = self._open.enter_context(partial.open("w", encoding="utf-8"))
        self._file.write(head)
        self._separator = "\n"

    def add(self, record: dict) -> None:
        """Write a record."""
        self._file.write(self._separator + json.dumps(record))
        self._separator = ",\n"

    def close(self) -> None:
        """Write the tail and complete the file."""
        with self._open:
            self._file.write(f"\n{self._tail}\n")
