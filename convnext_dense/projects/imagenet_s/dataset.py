"""The ImageNet-S data set, in the folders that its preparation scripts create.

    ROOT/train-semi/<wnid>/*.JPEG    ROOT/train-semi-segmentation/<wnid>/*.png
    ROOT/validation/<wnid>/*.JPEG    ROOT/validation-segmentation/<wnid>/*.png

A label map is an RGB image. The id of a pixel is R + 256 G: 0 is 'other', 1 to 919
are the categories in the order of their WordNet ids, 1000 is ignored.
"""

from pathlib import Path
from typing import ClassVar

import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS

from convnext_dense.errors import InputError

CATEGORIES = Path(__file__).with_name("categories.txt").read_text().split()
IGNORED = 1000


@DATASETS.register_module()
class ImageNetSDataset(BaseSegDataset):
    """Images and label maps of ImageNet-S.

    Args:
        kwargs: arguments of mmseg's ``BaseSegDataset``; ``data_prefix`` names the
            folders of a split.
    """

    METAINFO: ClassVar = dict(classes=("other", *CATEGORIES))

    def __init__(self, **kwargs):
        super().__init__(
            img_suffix=".JPEG", seg_map_suffix=".png", ignore_index=IGNORED, **kwargs
        )


@TRANSFORMS.register_module()
class LoadImageNetSAnnotations(LoadAnnotations):
    """Reads a label map of ImageNet-S: RGB to ids, (H, W) int64.

    Raises:
        InputError: the label map is not RGB, or has an id that does not exist.
    """

    def _load_seg_map(self, results: dict) -> None:
        file = results["seg_map_path"]
        content = fileio.get(file, backend_args=self.backend_args)
        image = mmcv.imfrombytes(content, flag="unchanged", backend="cv2")
        if image is None or image.ndim != 3:
            raise InputError(
                f"{file} is not a label map of ImageNet-S: those are RGB images with "
                "the ids R + 256 G"
            )
        bgr = image.astype(np.int64)
        labels = bgr[..., 2] + 256 * bgr[..., 1]
        unknown = labels[(labels > len(CATEGORIES)) & (labels != IGNORED)]
        if unknown.size:
            raise InputError(
                f"{file} has the id {unknown[0]}, but ImageNet-S has the ids 0 to "
                f"{len(CATEGORIES)}, and {IGNORED} for ignored pixels"
            )
        results["gt_seg_map"] = labels
        results["seg_fields"].append("gt_seg_map")
