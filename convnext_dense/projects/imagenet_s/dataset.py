"""The ImageNet-S data set, as its preparation scripts lay it out.

    ROOT/train-semi/<wnid>/*.JPEG    ROOT/train-semi-segmentation/<wnid>/*.png
    ROOT/validation/<wnid>/*.JPEG    ROOT/validation-segmentation/<wnid>/*.png

A label is an RGB picture; a pixel's id is R + 256 G. 0 is 'other', 1 to 919 are
the categories in the order of their WordNet ids, 1000 is ignored.
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
    """Photographs and label pictures of ImageNet-S.

    Args:
        kwargs: of mmseg's ``BaseSegDataset``; ``data_prefix`` names the folders
            of a split.
    """

    METAINFO: ClassVar = dict(classes=("other", *CATEGORIES))

    def __init__(self, **kwargs):
        super().__init__(
            img_suffix=".JPEG", seg_map_suffix=".png", ignore_index=IGNORED, **kwargs
        )


@TRANSFORMS.register_module()
class LoadImageNetSAnnotations(LoadAnnotations):
    """Read a label picture: RGB to ids, (H, W) int64.

    Raises:
        InputError: the picture is not RGB, or has an id that does not exist.
    """

    def _load_seg_map(self, results: dict) -> None:
        file = results["seg_map_path"]
        content = fileio.get(file, backend_args=self.backend_args)
        picture = mmcv.imfrombytes(content, flag="unchanged", backend="cv2")
        if picture is None or picture.ndim != 3:
            raise InputError(
                f"{file} is no label of ImageNet-S: those are RGB, with ids R + 256 G"
            )
        blue_green_red = picture.astype(np.int64)
        labels = blue_green_red[..., 2] + 256 * blue_green_red[..., 1]
        unknown = labels[(labels > len(CATEGORIES)) & (labels != IGNORED)]
        if unknown.size:
            raise InputError(
                f"{file} has the id {unknown[0]}: there are 0 to {len(CATEGORIES)}, "
                f"and {IGNORED} for what is ignored"
            )
        results["gt_seg_map"] = labels
        results["seg_fields"].append("gt_seg_map")
