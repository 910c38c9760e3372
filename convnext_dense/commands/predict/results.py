"""Write predictions to files: drawings, COCO results and label maps.

    OUT/pictures/NAME.jpg      the image with boxes and masks, or classes, drawn
    OUT/pictures/NAME.mp4      the same for a video
    OUT/predictions.json       detection: COCO results
    OUT/images.json            detection: ids of the images and of the categories
    OUT/panoptic.json          panoptic models: COCO's panoptic results
    OUT/panoptic/NAME.png      panoptic models: the segment of each pixel
    OUT/crops/                 with --save-crops: see ``crops.py``
    OUT/labels/NAME.png        segmentation: the class of each pixel
    OUT/labels/CLIP.mp4/000001.png ...    the same for a video, one file per frame

``pycocotools.coco.COCO("images.json").loadRes("predictions.json")`` opens the two
json files. A file is complete or does not exist. Files grow on disk, not in memory.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement

from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import Drawer
from convnext_dense.utils.text import few

from .class_filter import PANOPTIC_OFFSET, keep_classes
from .coco_files import CocoFiles, categories
from .crops import write_crops
from .inputs import Source
from .video_file import VideoFile
from .windows import LargeDrawer
from .writing import write_picture


class Results:
    """Writes the results of predictions. Call ``close`` at the end.

    Args:
        out: the folder.
        scope: 'mmdet' or 'mmseg'.
        dataset_meta: has ``classes``, and may have ``palette``, ``category_ids`` (of
            the classes) and ``reduce_zero_label``.
        score_thr: boxes with a lower score are not drawn; the json has them.
        things: of a panoptic model, how many of the first classes are things.
        tile: the side of the tiles in which images are predicted; None without.
        labels: of the classes whose objects are kept; None keeps all.
        save_crops: whether each object above ``score_thr`` is written as an image.
    """

    def __init__(
        self,
        out: Path,
        scope: str,
        dataset_meta: dict,
        score_thr: float,
        *,
        things: int | None = None,
        tile: int | None = None,
        labels: Sequence[int] | None = None,
        save_crops: bool = False,
    ):
        self._out = out
        self._classes = dataset_meta["classes"]
        self._drawer = Drawer(scope, dataset_meta)
        self._large = LargeDrawer(self._drawer, dataset_meta) if tile else None
        self._score_thr = score_thr
        self._tile = tile
        self._labels = labels
        self._save_crops = save_crops
        # The best score in each file; None where the model predicts no object.
        self._best: dict[str, float | None] = {}
        # The label of the first class in the data set's label maps.
        self._first = 1 if dataset_meta.get("reduce_zero_label") else 0
        self._coco = CocoFiles(out, categories(dataset_meta, things))

    def close(self) -> None:
        """Complete the json files."""
        self._coco.close()

    def say_if_nothing_is_drawn(self) -> None:
        """Print a line if files have no object above the threshold."""
        low = {
            name: best
            for name, best in self._best.items()
            if best is None or best <= self._score_thr
        }
        if not low:
            return
        text, number = f"nothing above {self._score_thr:g}", len(self._best)
        if len(low) < number:
            names = (f"{name} ({_best(best)})" for name, best in low.items())
            text += f" in {len(low)} of {number} files: {few(names)}"
        else:
            text += f" in all {number} files" if number > 1 else ""
            scores = [best for best in low.values() if best is not None]
            best = max(scores) if scores else None
            text += f"; {_best(best)}" + (": lower --score-thr" if scores else "")
        print_log(text, "current")

    def image(
        self, source: Source, number: int, image: np.ndarray, sample: BaseDataElement
    ) -> None:
        """Write the prediction of an image (H, W, 3) RGB with the id ``number``."""
        picture = self._add(source, number, None, image, sample)
        write_picture(self._out / source.picture, picture)

    @contextlib.contextmanager
    def video(self, source: Source, rate: float) -> Iterator[Callable]:
        """Yield a function that writes a frame: ``(frame, number, image, sample)``.

        Args:
            source: the video.
            rate: frames per second.
        """
        with contextlib.closing(VideoFile(self._out / source.picture, rate)) as video:

            def add(frame, number, image, sample):
                video.add(self._add(source, number, frame, image, sample))

            yield add

    def _add(self, source, number, frame, image, sample) -> np.ndarray:
        """Write the label map or COCO results of an image; return the drawing."""
        if "pred_sem_seg" in sample:
            labels = sample.pred_sem_seg.data.squeeze(0).numpy()
            check_labels(labels, len(self._classes))
            # Drawn first: if the memory is too small, no result is written.
            picture = self._draw(image, sample)
            # IoUMetric of mmseg writes 8 bits, even for more than 256 classes.
            last = self._first + len(self._classes) - 1
            dtype = np.uint8 if last < 256 else np.uint16
            labels = labels.astype(dtype) + dtype(self._first)
            write_picture(self._out / source.labels(frame or 0), labels)
            return picture
        if self._labels is not None:
            sample = keep_classes(sample, self._labels, len(self._classes))
        self._check_objects(source.file_name, sample)
        picture = self._draw(image, sample)
        height, width = image.shape[:2]
        record = dict(id=number, file_name=source.file_name, width=width, height=height)
        if frame is not None:
            record["frame"] = frame
        still = source.still(frame or 0)
        self._coco.add(record, sample, still)
        if self._save_crops and "pred_instances" in sample:
            instances, classes = sample.pred_instances, self._classes
            write_crops(self._out, still, image, instances, classes, self._score_thr)
        return picture

    def _draw(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        """Draw a prediction; one of several tiles without the memory of one drawing."""
        in_tiles = self._tile and max(image.shape[:2]) > self._tile
        drawer = self._large if self._large and in_tiles else self._drawer
        return drawer.prediction(image, sample, self._score_thr)

    def _check_objects(self, file_name: str, sample: BaseDataElement) -> None:
        """Check the objects and segments of an image, and note the best score.

        Raises:
            InputError: a label is not one of the classes, or a number is not finite.
        """
        if "pred_panoptic_seg" in sample:
            ids = sample.pred_panoptic_seg.sem_seg.numpy() % PANOPTIC_OFFSET
            check_labels(ids[ids != len(self._classes)], len(self._classes))
        if "pred_instances" in sample:
            instances = sample.pred_instances
            check_labels(instances.labels.numpy(), len(self._classes))
            _check_finite(instances)
            scores = instances.scores.tolist()
            earlier = self._best.get(file_name)
            scores += [] if earlier is None else [earlier]
            self._best[file_name] = max(scores, default=None)


def check_labels(labels: np.ndarray, number: int) -> None:
    """Raise an InputError if a label is not one of so many classes."""
    if labels.size and labels.max() >= number:
        raise InputError(
            f"the model predicts class {labels.max()} (counted from 0), but the data "
            f"has {number} classes: the config is for other data"
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


def _best(score: float | None) -> str:
    """The best score in words."""
    return "no object was found" if score is None else f"the best was {score:.2g}"
