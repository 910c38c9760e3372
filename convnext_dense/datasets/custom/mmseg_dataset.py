"""The MMSegmentation data set and transform for label maps of custom data.

This module needs MMSegmentation, so only configs with such data import it.
"""

from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import DATASETS, TRANSFORMS
from mmseg.datasets import BaseSegDataset

from convnext_dense.utils.json_files import read_json

from .label_maps import IGNORED, UNKNOWN, read_label_map


@DATASETS.register_module()
class LabelMapDataset(BaseSegDataset):
    """Pairs of an image and a label map.

    Args:
        ann_file: a JSON list of [image, label map], each relative to its
            ``data_prefix``, with any file endings.
    """

    def load_data_list(self) -> list[dict]:
        """Read ``ann_file``; mmengine calls this when it builds the data set."""
        images = Path(self.data_prefix["img_path"])
        labels = Path(self.data_prefix["seg_map_path"])
        return [
            dict(
                img_path=str(images / image),
                seg_map_path=str(labels / label_map),
                label_map=None,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for image, label_map in read_json(self.ann_file)
        ]


@TRANSFORMS.register_module()
class LoadLabelMapAnnotations(BaseTransform):
    """mmseg's ``LoadAnnotations`` for every format that ``read_label_map`` reads.

    Adds ``gt_seg_map`` (H, W) uint8; pixels of 255 are not trained on.

    Args:
        colors: rows of red, green, blue and class index for label maps in colours;
            None for others.
        ids: the value of each class in the label maps; None if the values are the
            class indices.
    """

    def __init__(
        self, colors: list[list[int]] | None = None, ids: list[int] | None = None
    ):
        self.colors = colors
        self.ids = ids

    def transform(self, results: dict) -> dict:
        """Read the label map at ``seg_map_path``."""
        labels = read_label_map(
            results["seg_map_path"],
            self.colors,
            not results["reduce_zero_label"],
            self.ids,
        )
        labels[labels == UNKNOWN] = IGNORED
        results["gt_seg_map"] = labels.astype(np.uint8)
        results["seg_fields"].append("gt_seg_map")
        return results
