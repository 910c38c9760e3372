"""Draws predictions into images that are too large to be drawn at once.

matplotlib takes 150 bytes for each pixel: 7.2 GB for 8000 x 6000. So it draws windows
of the image one after another. OpenCV draws boxes and masks.
"""

import itertools
import math
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmengine.visualization import Visualizer

from convnext_dense.engine.tiling.grid import Tile
from convnext_dense.reports.drawing import Drawer, draw_in_any_script, palette
from convnext_dense.utils.text import label

SIDE = 1024  # pixels of a window, at most
LINE = 2  # pixels of the line of a box
WHITE = (255, 255, 255)
NAME = (
    400,
    40,
)  # pixels that the name of a class takes to the right and below, at most


class LargeDrawer:
    """Draws the predictions of large images, window by window.

    Args:
        drawer: draws label maps.
        dataset_meta: has ``classes``, and may have ``palette``.
    """

    def __init__(self, drawer: Drawer, dataset_meta: dict):
        self._drawer = drawer
        self._classes = [label(name) for name in dataset_meta["classes"]]
        self._colors = dataset_meta.get("palette") or palette(dataset_meta["classes"])
        self._names = Visualizer("names")
        self._names.dataset_meta = dict(classes=self._classes)
        draw_in_any_script(self._names)

    def prediction(
        self, image: np.ndarray, sample: BaseDataElement, score_thr: float
    ) -> np.ndarray:
        """Draw a prediction into ``image``, (H, W, 3) RGB uint8.

        Args:
            sample: has ``pred_sem_seg``, or ``pred_instances`` with ``RunLengthMasks``.
            score_thr: boxes and masks that have no higher score are left out.
        """
        picture = image.copy()
        if "pred_sem_seg" in sample:
            self._draw_label_map(picture, sample)
        else:
            instances = sample.pred_instances
            instances = instances[instances.scores > score_thr]
            instances = instances[instances.scores.argsort(stable=True)]
            self._draw_objects(picture, instances)
            self._draw_names(picture, instances)
        return picture

    def _draw_label_map(self, picture: np.ndarray, sample: BaseDataElement) -> None:
        """Draw the classes of pixels, and their names in each window."""
        for window in _windows(picture):
            rows, columns = _place(window)
            view = type(sample)()
            labels = sample.pred_sem_seg.data[:, rows, columns]
            view.pred_sem_seg = PixelData(data=labels)
            pixels = np.ascontiguousarray(picture[rows, columns])
            picture[rows, columns] = self._drawer.prediction(pixels, view)

    def _draw_objects(self, picture: np.ndarray, instances: InstanceData) -> None:
        """Draw boxes and masks."""
        height, width = picture.shape[:2]
        masks = instances.get("masks")
        for number, box in enumerate(instances.bboxes.tolist()):
            color = self._colors[int(instances.labels[number])]
            left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
            right, bottom = (
                min(width, math.ceil(box[2])),
                min(height, math.ceil(box[3])),
            )
            if left >= right or top >= bottom:
                continue
            if masks is not None:
                window = Tile(left, top, right, bottom)
                (mask,) = masks[number : number + 1].window(window)
                pixels = np.ascontiguousarray(picture[_place(window)])
                pixels[mask] = pixels[mask] // 2 + np.array(color, np.uint8) // 2
                contours, _ = cv2.findContours(
                    mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
                )
                cv2.drawContours(pixels, contours, -1, WHITE, 1)
                picture[_place(window)] = pixels
            corners = (left, top), (right - 1, bottom - 1)
            cv2.rectangle(picture, *corners, color, LINE)

    def _draw_names(self, picture: np.ndarray, instances: InstanceData) -> None:
        """Draw the names of classes, and scores, at the corners of the boxes."""
        corners = instances.bboxes[:, :2].numpy() + LINE
        texts = [
            f"{self._classes[int(index)]}: {100 * float(score):.1f}"
            for index, score in zip(instances.labels, instances.scores, strict=True)
        ]
        for window in _windows(picture):
            places = corners - (window.left, window.top)
            size = (window.width, window.height)
            shown = ((places > np.negative(NAME)) & (places < size)).all(1)
            if not shown.any():
                continue
            pixels = np.ascontiguousarray(picture[_place(window)])
            with warnings.catch_warnings():
                # mmengine warns of a name that begins in another window.
                warnings.simplefilter("ignore", UserWarning)
                self._names.set_image(pixels)
                self._names.draw_texts(
                    [text for text, inside in zip(texts, shown, strict=True) if inside],
                    places[shown],
                    font_sizes=10,
                    colors="w",
                    bboxes=dict(
                        facecolor="black", alpha=0.8, pad=0.7, edgecolor="none"
                    ),
                )
            picture[_place(window)] = self._names.get_image()


def _windows(picture: np.ndarray) -> Iterator[Tile]:
    """Windows of nearly equal size that cover a picture, without overlap."""
    rows, columns = (
        np.linspace(0, side, math.ceil(side / SIDE) + 1).astype(int).tolist()
        for side in picture.shape[:2]
    )
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            yield Tile(left, top, right, bottom)


def _place(window: Tile) -> tuple[slice, slice]:
    """The rows and columns of a window."""
    return slice(window.top, window.bottom), slice(window.left, window.right)
