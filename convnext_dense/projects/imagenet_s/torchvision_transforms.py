"""torchvision's augmentations as a transform of an MMSegmentation pipeline."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from convnext_dense.errors import InputError


@TRANSFORMS.register_module()
class TorchvisionTransforms(BaseTransform):
    """Applies torchvision's v2 transforms to an image and its label map.

    Geometric transforms change ``gt_seg_map`` like the image, with nearest-neighbour
    interpolation. Transforms of colours leave it unchanged.

    Args:
        transforms: dicts with ``type``, a name in ``torchvision.transforms.v2``, and
            the transform's arguments. An argument ``transforms``, such as that of
            RandomApply, may be such a list too.

    Raises:
        InputError: torchvision has no transform of that name.
    """

    def __init__(self, transforms: list[dict]):
        self.transforms = v2.Compose(list(map(_build, transforms)))

    def transform(self, results: dict) -> dict:
        """Transform ``img`` (H, W, 3) BGR and, if it exists, ``gt_seg_map`` (H, W)."""
        rgb = np.ascontiguousarray(results["img"][..., ::-1].transpose(2, 0, 1))
        inputs = [tv_tensors.Image(torch.from_numpy(rgb))]
        if "gt_seg_map" in results:
            inputs.append(tv_tensors.Mask(torch.from_numpy(results["gt_seg_map"])))
        image, *labels = self.transforms(inputs)
        results["img"] = image.numpy().transpose(1, 2, 0)[..., ::-1].copy()
        results["img_shape"] = results["img"].shape[:2]
        if labels:
            results["gt_seg_map"] = labels[0].numpy()
        return results


def _build(transform: dict) -> nn.Module:
    """Build the transform of a dict, and those in its ``transforms``."""
    arguments = dict(transform)
    name = arguments.pop("type")
    transform_class = getattr(v2, name, None)
    if transform_class is None:
        raise InputError(
            f"TorchvisionTransforms: torchvision.transforms.v2 has no transform {name}"
        )
    if "transforms" in arguments:
        arguments["transforms"] = list(map(_build, arguments["transforms"]))
    return transform_class(**arguments)
