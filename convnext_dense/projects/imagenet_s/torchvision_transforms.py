"""torchvision's augmentations in an MMSegmentation pipeline."""

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
    """Apply torchvision's v2 transforms to an image and, alike, to its labels.

    What moves pixels moves those of ``gt_seg_map`` too, to the nearest label;
    what changes colours leaves it as it is.

    Args:
        transforms: each a dict: ``type``, a name in ``torchvision.transforms.v2``,
            and its arguments. ``transforms`` in turn, as RandomApply has, may be
            such a list.

    Raises:
        InputError: torchvision has no transform of that name.
    """

    def __init__(self, transforms: list[dict]):
        self.transforms = v2.Compose(list(map(_build, transforms)))

    def transform(self, results: dict) -> dict:
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
    arguments = dict(transform)
    name = arguments.pop("type")
    kind = getattr(v2, name, None)
    if kind is None:
        raise InputError(f"TorchvisionTransforms: torchvision's v2 has no {name}")
    if "transforms" in arguments:
        arguments["transforms"] = list(map(_build, arguments["transforms"]))
    return kind(**arguments)
