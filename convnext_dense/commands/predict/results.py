"""Predictions as files: pictures and videos, COCO results, label maps.

    OUT/pictures/NAME.jpg      the image with boxes and masks, or classes, drawn
    OUT/pictures/NAME.mp4      the same of a video
    OUT/predictions.json       detection: COCO results
    OUT/images.json            detection: whose results they are, and the categories
    OUT/labels/NAME.png        segmentation: the class of each pixel
    OUT/labels/CLIP.mp4/000001.png ...    the same of a video, a file a frame

``pycocotools.coco.COCO("images.json").loadRes("predictions.json")`` opens the two
json files. All are whole or not there, and grow on disk, not in memory.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from mmengine.structures import BaseDataElement

from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import Drawer
from convnext_dense.utils import files

from .inputs import Source

# COCO numbers its 80 categories 1 to 90.
_COCO_IDS = sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


class Results:
    """Writes what is predicted; to be closed.

    Args:
        out: the folder.
        scope: 'mmdet' or 'mmseg'.
        dataset_meta: ``classes``; optional: ``palette``, ``category_ids`` of the
            classes, ``reduce_zero_label``.
        score_thr: boxes of a lower score are not drawn; the json has them.
    """

    def __init__(self, out: Path, scope: str, dataset_meta: dict, score_thr: float):
        self._out = out
        self._classes = dataset_meta["classes"]
        self._drawer = Drawer(scope, dataset_meta)
        self._score_thr = score_thr
        # As the data set's label files number them: 0 is none of the classes.
        self._first = 1 if dataset_meta.get("reduce_zero_label") else 0
        self._coco = _CocoFiles(out, _categories(dataset_meta))

    def close(self) -> None:
        self._coco.close()

    def image(
        self, source: Source, number: int, image: np.ndarray, sample: BaseDataElement
    ) -> None:
        """Write the prediction of an image (H, W, 3) RGB with the id ``number``."""
        picture = self._add(source, number, None, image, sample)
        _write_image(self._out / source.picture, picture)

    @contextlib.contextmanager
    def video(self, source: Source, rate: float) -> Iterator[Callable]:
        """Yield what takes each frame: ``(frame, number, image, sample)``.

        Args:
            rate: frames a second.
        """
        with contextlib.closing(_VideoFile(self._out / source.picture, rate)) as video:

            def add(frame, number, image, sample):
                video.add(self._add(source, number, frame, image, sample))

            yield add

    def _add(self, source, number, frame, image, sample) -> np.ndarray:
        """Write all but the picture, which is returned."""
        if "pred_sem_seg" in sample:
            labels = sample.pred_sem_seg.data.squeeze(0).numpy()
            self._check(labels)
            # mmseg's own metric writes 8 bits, whatever the number of classes.
            last = self._first + len(self._classes) - 1
            kind = np.uint8 if last < 256 else np.uint16
            labels = (labels + self._first).astype(kind)
            _write_image(self._out / source.labels(frame or 0), labels)
        else:
            instances = sample.pred_instances
            self._check(instances.labels.numpy())
            height, width = image.shape[:2]
            about = dict(
                id=number, file_name=source.file_name, width=width, height=height
            )
            if frame is not None:
                about["frame"] = frame
            self._coco.add(about, instances)
        return self._drawer.prediction(image, sample, self._score_thr)

    def _check(self, labels: np.ndarray) -> None:
        if labels.size and labels.max() >= len(self._classes):
            raise InputError(
                f"the model predicts class {labels.max()}, from 0, and the data has "
                f"{len(self._classes)} classes: the config is not of the same data"
            )


def _categories(dataset_meta: dict) -> list[dict]:
    classes = dataset_meta["classes"]
    ids = dataset_meta.get("category_ids")
    if not ids or len(ids) != len(classes):
        from mmdet.datasets import CocoDataset

        is_coco = classes == tuple(CocoDataset.METAINFO["classes"])
        ids = _COCO_IDS if is_coco else range(1, len(classes) + 1)
    return [dict(id=i, name=name) for i, name in zip(ids, classes, strict=True)]


class _CocoFiles:
    """``predictions.json`` and ``images.json``, begun with the first image."""

    def __init__(self, out: Path, categories: list[dict]):
        self._out = out
        self._categories = categories
        self._lists = ()

    def add(self, image: dict, instances: BaseDataElement) -> None:
        if not self._lists:
            head = json.dumps(dict(categories=self._categories, annotations=[]))
            self._lists = (
                _JsonList(self._out / "images.json", f'{head[:-1]}, "images": [', "]}"),
                _JsonList(self._out / "predictions.json", "[", "]"),
            )
        images, predictions = self._lists
        images.add(image)
        for result in self._results(image["id"], instances):
            predictions.add(result)

    def _results(self, image_id: int, instances: BaseDataElement) -> Iterator[dict]:
        boxes = instances.bboxes.numpy().astype(float)
        boxes[:, 2:] -= boxes[:, :2]
        masks = instances.get("masks")
        if masks is not None:
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

    def close(self) -> None:
        for one in self._lists:
            one.close()


class _JsonList:
    """A file that is written one record after the other; there when it is closed."""

    def __init__(self, path: Path, head: str, tail: str):
        self._tail = tail
        self._open = contextlib.ExitStack()
        _make_folder(path.parent)
        partial = self._open.enter_context(files.whole(path))
        self._file = self._open.enter_context(partial.open("w", encoding="utf-8"))
        self._file.write(head)
        self._separator = "\n"

    def add(self, record: dict) -> None:
        self._file.write(self._separator + json.dumps(record))
        self._separator = ",\n"

    def close(self) -> None:
        with self._open:
            self._file.write(f"\n{self._tail}\n")


class _VideoFile:
    """A video that is written frame by frame; there when it is closed, if not empty."""

    def __init__(self, path: Path, rate: float):
        self._path = path
        self._rate = rate
        self._open = contextlib.ExitStack()
        self._writer = None
        self._count = 0

    def add(self, image: np.ndarray) -> None:
        if self._writer is None:
            _make_folder(self._path.parent)
            self._partial = self._open.enter_context(files.whole(self._path))
            code = cv2.VideoWriter_fourcc(*"mp4v")
            size = image.shape[1::-1]
            self._writer = cv2.VideoWriter(str(self._partial), code, self._rate, size)
            self._open.callback(self._finish)
        self._writer.write(np.ascontiguousarray(image[..., ::-1]))
        self._count += 1

    def _finish(self) -> None:
        self._writer.release()
        # The writer says nothing of a full disk, or of a codec that is not there.
        written = cv2.VideoCapture(str(self._partial)).get(cv2.CAP_PROP_FRAME_COUNT)
        if written != self._count:
            raise InputError(
                f"{self._path} could not be written: it has {max(0, int(written))} of "
                f"{self._count} frames"
            )

    def close(self) -> None:
        self._open.close()


def _write_image(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) RGB or (H, W) in the format that the path ends with."""
    if image.ndim == 3:
        image = np.ascontiguousarray(image[..., ::-1])
    _make_folder(path.parent)
    with files.whole(path) as partial:
        # Not imwrite, which says too little when it fails.
        _, content = cv2.imencode(path.suffix, image)
        partial.write_bytes(content)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder {path} cannot be made: {error.strerror}"
        ) from error
