"""Draws annotations and predictions into images, with the toolboxes' visualizers."""

import colorsys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from mmengine.structures import BaseDataElement, PixelData

from convnext_dense.utils.image_content import check_size
from convnext_dense.utils.text import label

from . import fonts

if TYPE_CHECKING:  # it is slow to import
    from mmengine.visualization import Visualizer

# Its first multiples, modulo 1, are far from each other.
GOLDEN_RATIO = 0.618034
# Bytes of memory for each pixel of an image that is drawn by matplotlib: 135 to 145
# (measured with 5000 x 5000 pixels), and the image itself.
DRAWING = 150
MIN_RADIUS = 6  # pixels; a class whose area is narrower gets no name
BACKGROUND = ("background", "ground", "unlabelled", "unlabeled", "void")


def palette(classes: Sequence[str]) -> list[tuple[int, int, int]]:
    """An RGB colour for each class, far from the others; grey for the background."""
    colors: list[tuple[int, int, int]] = []
    for index, name in enumerate(classes):
        if str(name).lower() in BACKGROUND:
            colors.append((90, 90, 90))
            continue
        hue = (0.02 + index * GOLDEN_RATIO) % 1
        # After 21, 34, 55, ... classes hues are near each other; then saturation and
        # value differ.
        saturation = (0.8, 0.55)[index % 2]
        value = (0.95, 0.65, 0.85, 0.72, 0.9)[index % 5]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colors


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """An image (H, W, 3) whose longer side has at most ``longest`` pixels."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


class Drawer:
    """Draws the data samples of one toolbox.

    Args:
        scope: 'mmdet' or 'mmseg'.
        dataset_meta: the data set's ``classes`` and, if it has colours, ``palette``.

    Its methods raise an InputError if an image is too large for the memory.
    """

    def __init__(self, scope: str, dataset_meta: dict):
        classes = tuple(map(label, dataset_meta["classes"]))
        # The registry is not used: it would make this the visualizer of the run.
        if scope == "mmdet":
            from mmdet.visualization import DetLocalVisualizer as LocalVisualizer
        else:
            from mmseg.visualization import SegLocalVisualizer as LocalVisualizer
        self._visualizer = LocalVisualizer(name="drawer", alpha=0.5)
        self._visualizer.dataset_meta = dict(
            classes=classes,
            palette=dataset_meta.get("palette") or palette(dataset_meta["classes"]),
        )
        draw_in_any_script(self._visualizer)
        self._scope = scope

    def truth(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        """Draw the annotations of a sample into ``image``, (H, W, 3) RGB uint8."""
        if self._scope == "mmseg":
            return self._label_map(image, sample.gt_sem_seg)
        return self._add(image, sample, draw_gt=True, draw_pred=False)

    def prediction(
        self, image: np.ndarray, sample: BaseDataElement, score_thr: float = 0.3
    ) -> np.ndarray:
        """Draw the prediction of a sample into ``image``, (H, W, 3) RGB uint8.

        Args:
            score_thr: boxes and masks with a lower score are left out.
        """
        if self._scope == "mmseg":
            return self._label_map(image, sample.pred_sem_seg)
        segments = sample.get("pred_panoptic_seg")
        no_segment = len(self._visualizer.dataset_meta["classes"])
        if segments is not None and (segments.sem_seg == no_segment).all():
            sample = sample.new()
            del sample.pred_panoptic_seg  # mmdet fails to draw it
        drawn = dict(draw_gt=False, draw_pred=True, pred_score_thr=score_thr)
        return self._add(image, sample, **drawn)

    def _add(self, image: np.ndarray, sample: BaseDataElement, **drawn) -> np.ndarray:
        """Let the visualizer draw a sample; ``drawn`` are its options."""
        check_size(image.shape[1], image.shape[0], DRAWING)
        with warnings.catch_warnings():
            # mmdet warns of every box that touches an edge of the image.
            warnings.simplefilter("ignore", UserWarning)
            self._visualizer.add_datasample("", image, sample, **drawn)
        return self._visualizer.get_image()

    def _label_map(self, image: np.ndarray, label_map: PixelData) -> np.ndarray:
        """Draw a label map, and the name of each class where its area is widest."""
        from mmseg.structures import SegDataSample

        if image.shape[:2] == (1, 1):
            return image  # mmseg fails: it reads a mask of one pixel as an index
        sample = SegDataSample(pred_sem_seg=label_map)
        return self._add(image, sample, draw_gt=False)


def draw_in_any_script(visualizer: "Visualizer") -> None:
    """Let a toolbox's visualizer draw its classes' names in fonts that have them.

    Args:
        visualizer: of mmdet or mmseg; its ``dataset_meta`` has the ``classes``.
    """
    classes = [label(name) for name in visualizer.dataset_meta["classes"]]
    families = fonts.families(classes)
    draw_texts, get_image = visualizer.draw_texts, visualizer.get_image

    def draw_texts_in_fonts(texts, *args, **options):
        number = 1 if isinstance(texts, str) else len(texts)
        options["font_families"] = [families] * number
        with fonts.without_warnings():
            return draw_texts(texts, *args, **options)

    def get_image_without_warnings():
        with fonts.without_warnings():
            return get_image()

    visualizer.draw_texts = draw_texts_in_fonts
    visualizer.get_image = get_image_without_warnings
    if not hasattr(visualizer, "_draw_sem_seg"):
        return
    # mmseg draws names with OpenCV, which has ASCII only, and takes a second for each.
    draw_sem_seg = visualizer._draw_sem_seg

    def draw_sem_seg_and_names(image, sem_seg, names, colors, with_labels=True):
        draw_sem_seg(image, sem_seg, names, colors, with_labels=False)
        if with_labels:
            _draw_class_names(visualizer, sem_seg, classes)
        return visualizer.get_image()

    visualizer._draw_sem_seg = draw_sem_seg_and_names


def _draw_class_names(
    visualizer: "Visualizer", label_map: PixelData, classes: Sequence[str]
) -> None:
    """Draw the name of each class where its area in a label map is widest."""
    labels = np.asarray(label_map.data.cpu()).squeeze(0)
    for index in np.unique(labels[labels < len(classes)]):
        # The distance of each pixel to the class's edge; the padding is outside.
        mask = np.pad((labels == index).astype(np.uint8), 1)
        inside = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        _, radius, _, (x, y) = cv2.minMaxLoc(inside)
        if radius < MIN_RADIUS:
            continue
        visualizer.draw_texts(
            classes[index],
            np.array([x - 1, y - 1]),
            font_sizes=9,
            colors="w",
            horizontal_alignments="center",
            vertical_alignments="center",
            bboxes=dict(facecolor="black", alpha=0.6, pad=0.8, edgecolor="none"),
        )
