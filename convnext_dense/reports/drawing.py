"""Pictures of annotations and predictions, by the toolboxes' visualizers."""

import colorsys
import warnings

import cv2
import numpy as np
from mmengine.structures import BaseDataElement

# Few multiples of it, modulo 1, lie far apart from each other.
GOLDEN_RATIO = 0.618034
BACKGROUND = ("background", "ground", "unlabelled", "unlabeled", "void")


def palette(classes: tuple[str, ...]) -> list[tuple[int, int, int]]:
    """An RGB colour for each class, far apart; grey for one that is the background."""
    colors = []
    for index, name in enumerate(classes):
        if name.lower() in BACKGROUND:
            colors.append((90, 90, 90))
            continue
        hue = (0.02 + index * GOLDEN_RATIO) % 1
        # Hues come near after 21, 34, 55, ... classes; then these differ.
        saturation = (0.8, 0.55)[index % 2]
        value = (0.95, 0.65, 0.85, 0.72, 0.9)[index % 5]
        rgb = colorsys.hsv_to_rgb(hue, saturation, value)
        colors.append(tuple(round(255 * part) for part in rgb))
    return colors


class Drawer:
    """Draws data samples of one toolbox.

    Args:
        scope: 'mmdet' or 'mmseg'.
        dataset_meta: the data set's ``classes`` and, if it has one, ``palette``.
    """

    def __init__(self, scope: str, dataset_meta: dict):
        classes = tuple(dataset_meta["classes"])
        # Not by the registry, which would make it the run's own visualizer.
        if scope == "mmdet":
            from mmdet.visualization import DetLocalVisualizer as Visualizer
        else:
            from mmseg.visualization import SegLocalVisualizer as Visualizer
        self._visualizer = Visualizer(name="drawer", alpha=0.5)
        self._visualizer.dataset_meta = dict(
            classes=classes, palette=dataset_meta.get("palette") or palette(classes)
        )
        self._scope = scope

    def truth(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        """``image`` (H, W, 3) RGB uint8 with the sample's annotations, same shape."""
        if self._scope == "mmseg":
            return self._label_map(image, sample.gt_sem_seg)
        return self._add(image, sample, draw_gt=True, draw_pred=False)

    def prediction(
        self, image: np.ndarray, sample: BaseDataElement, score_thr: float = 0.3
    ) -> np.ndarray:
        """``image`` (H, W, 3) RGB uint8 with the sample's prediction, same shape.

        Args:
            score_thr: boxes and masks of a lower score are left out.
        """
        if self._scope == "mmseg":
            return self._label_map(image, sample.pred_sem_seg)
        drawn = dict(draw_gt=False, draw_pred=True, pred_score_thr=score_thr)
        return self._add(image, sample, **drawn)

    def _add(self, image, sample, **drawn) -> np.ndarray:
        with warnings.catch_warnings():
            # Of every box that touches an edge, that it is out of bounds.
            warnings.simplefilter("ignore", UserWarning)
            self._visualizer.add_datasample("", image, sample, **drawn)
        return self._visualizer.get_image()

    def _label_map(self, image: np.ndarray, label_map) -> np.ndarray:
        """mmseg's own names of classes know ASCII only and take a second a class."""
        from mmseg.structures import SegDataSample

        if image.shape[:2] == (1, 1):
            return image  # mmseg takes a mask of one pixel for an index, and fails
        sample = SegDataSample(pred_sem_seg=label_map)
        self._add(image, sample, draw_gt=False, with_labels=False)
        labels = np.asarray(label_map.data.cpu()).squeeze(0)
        meta = self._visualizer.dataset_meta
        for label in np.unique(labels[labels < len(meta["classes"])]):
            # Where the class is widest; a border of zeros is outside.
            here = np.pad((labels == label).astype(np.uint8), 1)
            inside = cv2.distanceTransform(here, cv2.DIST_L2, 3)
            _, radius, _, (x, y) = cv2.minMaxLoc(inside)
            if radius < 6:
                continue  # no room for a name
            self._visualizer.draw_texts(
                meta["classes"][label],
                np.array([x - 1, y - 1]),
                font_sizes=9,
                colors="w",
                horizontal_alignments="center",
                vertical_alignments="center",
                bboxes=dict(facecolor="black", alpha=0.6, pad=0.8, edgecolor="none"),
            )
        return self._visualizer.get_image()
