"""Write predictions to files: drawings, COCO results and label maps.

    OUT/pictures/NAME.jpg      the image with boxes and masks, or classes, drawn
    OUT/pictures/NAME.mp4      the same for a video
    OUT/predictions.json       detection: COCO results
    OUT/images.json            detection: ids of the images and of the categories
    OUT/labels/NAME.png        segmentation: the class of each pixel
    OUT/labels/CLIP.mp4/000001.png ...    the same for a video, one file per frame

``pycocotools.coco.COCO("images.json").loadRes("predictions.json")`` opens the two
json files. A file is complete or does not exist. Files grow on disk, not in memory.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement

from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import Drawer
from convnext_dense.utils import files
from convnext_dense.utils.images import write_image

from .decoding import check_name, open_video
from .inputs import Source

# COCO numbers its 80 categories 1 to 90.
_COCO_IDS = sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


class Results:
    """Writes the results of predictions. Call ``close`` at the end.

    Args:
        out: the folder.
        scope: 'mmdet' or 'mmseg'.
        dataset_meta: has ``classes``, and may have ``palette``, ``category_ids`` (of
            the classes) and ``reduce_zero_label``.
        score_thr: boxes with a lower score are not drawn; the json has them.
    """

    def __init__(self, out: Path, scope: str, dataset_meta: dict, score_thr: float):
        self._out = out
        self._classes = dataset_meta["classes"]
        self._drawer = Drawer(scope, dataset_meta)
        self._score_thr = score_thr
        self._best: float | None = None  # score of all boxes
        # The label of the first class in the data set's label maps.
        self._first = 1 if dataset_meta.get("reduce_zero_label") else 0
        self._coco = _CocoFiles(out, _categories(dataset_meta))

    def close(self) -> None:
        """Complete the json files."""
        self._coco.close()

    def say_if_nothing_is_drawn(self) -> None:
        """Print a line if boxes are predicted, and none is drawn."""
        if self._best is not None and self._best < self._score_thr:
            print_log(
                f"no box has a score of {self._score_thr:g} or more, so none is drawn; "
                f"the best has {self._best:.2g}: lower --score-thr",
                "current",
            )

    def image(
        self, source: Source, number: int, image: np.ndarray, sample: BaseDataElement
    ) -> None:
        """Write the prediction of an image (H, W, 3) RGB with the id ``number``."""
        picture = self._add(source, number, None, image, sample)
        _write_image(self._out / source.picture, picture)

    @contextlib.contextmanager
    def video(self, source: Source, rate: float) -> Iterator[Callable]:
        """Yield a function that writes a frame: ``(frame, number, image, sample)``.

        Args:
            source: the video.
            rate: frames per second.
        """
        with contextlib.closing(_VideoFile(self._out / source.picture, rate)) as video:

            def add(frame, number, image, sample):
                video.add(self._add(source, number, frame, image, sample))

            yield add

    def _add(self, source, number, frame, image, sample) -> np.ndarray:
        """Write the label map or COCO results of an image; return the drawing."""
        if "pred_sem_seg" in sample:
            labels = sample.pred_sem_seg.data.squeeze(0).numpy()
            self._check(labels)
            # Drawn first: if the memory is too small, no result is written.
            picture = self._drawer.prediction(image, sample, self._score_thr)
            # IoUMetric of mmseg writes 8 bits, even for more than 256 classes.
            last = self._first + len(self._classes) - 1
            dtype = np.uint8 if last < 256 else np.uint16
            labels = (labels + self._first).astype(dtype)
            _write_image(self._out / source.labels(frame or 0), labels)
        else:
            instances = sample.pred_instances
            self._check(instances.labels.numpy())
            _check_finite(instances)
            if len(instances.scores):
                self._best = max(self._best or 0.0, float(instances.scores.max()))
            picture = self._drawer.prediction(image, sample, self._score_thr)
            height, width = image.shape[:2]
            record = dict(
                id=number, file_name=source.file_name, width=width, height=height
            )
            if frame is not None:
                record["frame"] = frame
            self._coco.add(record, instances)
        return picture

    def _check(self, labels: np.ndarray) -> None:
        """Raise an InputError if a label is not one of the classes."""
        if labels.size and labels.max() >= len(self._classes):
            raise InputError(
                f"the model predicts class {labels.max()} (counted from 0), but the "
                f"data has {len(self._classes)} classes: the config is for other data"
            )


def _check_finite(instances: BaseDataElement) -> None:
    """Raise an InputError if a score or the side of a box is not a finite number.

    JSON has no such numbers, and the toolbox does not draw them.
    """
    for values in (instances.bboxes, instances.scores):
        if not values.isfinite().all():
            raise InputError(
                "the model predicts boxes or scores that are not finite numbers: the "
                "weights in the checkpoint are damaged, or training has diverged"
            )


def _categories(dataset_meta: dict) -> list[dict]:
    """The COCO categories of the classes: their ids and names."""
    classes = dataset_meta["classes"]
    ids = dataset_meta.get("category_ids")
    if not ids or len(ids) != len(classes):
        from mmdet.datasets import CocoDataset

        is_coco = classes == tuple(CocoDataset.METAINFO["classes"])
        ids = _COCO_IDS if is_coco else range(1, len(classes) + 1)
    return [dict(id=i, name=name) for i, name in zip(ids, classes, strict=True)]


class _CocoFiles:
    """Writes ``predictions.json`` and ``images.json``, from the first image on."""

    def __init__(self, out: Path, categories: list[dict]):
        self._out = out
        self._categories = categories
        self._lists: tuple[_JsonList, ...] = ()

    def add(self, image: dict, instances: BaseDataElement) -> None:
        """Add an image (a COCO record) and its predicted instances."""
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
        """Yield an image's COCO results."""
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
        """Complete the files."""
        for json_list in self._lists:
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
        _make_folder(path.parent)
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


class _VideoFile:
    """Writes an mp4 frame by frame. It appears when closed, unless it has no frame.

    Args:
        path: the file.
        rate: frames per second.

    Raises:
        InputError: the path is not UTF-8.
    """

    def __init__(self, path: Path, rate: float):
        try:
            check_name(path)
        except InputError as error:
            raise InputError(f"{path} could not be written: {error}") from error
        self._path = path
        self._rate = rate
        self._open = contextlib.ExitStack()
        self._writer: cv2.VideoWriter | None = None
        self._count = 0

    def add(self, image: np.ndarray) -> None:
        """Write a frame (H, W, 3) RGB uint8."""
        if self._writer is None:
            height, width = image.shape[:2]
            self._writer = self._start((width, height))
        self._writer.write(np.ascontiguousarray(image[..., ::-1]))
        self._count += 1

    def _start(self, size: tuple[int, int]) -> cv2.VideoWriter:
        """Open the file for frames of ``size`` (width, height)."""
        _make_folder(self._path.parent)
        partial = self._open.enter_context(files.whole(self._path))
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        # Other backends would write images, if the name is like 'clip%02d.mp4'.
        backend = cv2.CAP_FFMPEG
        writer = cv2.VideoWriter(str(partial), backend, codec, self._rate, size)
        self._open.callback(self._finish, writer, partial)
        return writer

    def _finish(self, writer: cv2.VideoWriter, partial: Path) -> None:
        """Close the video and check that it has all frames."""
        writer.release()
        # The writer reports neither a full disk nor a missing codec.
        written = open_video(partial).get(cv2.CAP_PROP_FRAME_COUNT)
        if written != self._count:
            raise InputError(
                f"{self._path} could not be written: {max(0, int(written))} of "
                f"{self._count} frames are in it. Check the free disk space and "
                "OpenCV's support of mp4 (codec mp4v)"
            )

    def close(self) -> None:
        """Complete the file."""
        self._open.close()


def _write_image(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) RGB or (H, W) in the format of the path's suffix."""
    if image.ndim == 3:
        image = np.ascontiguousarray(image[..., ::-1])
    _make_folder(path.parent)
    write_image(path, image)


def _make_folder(path: Path) -> None:
    """Make a folder and those above it; an InputError if that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder {path} cannot be created: {error.strerror}"
        ) from error
