"""Boxes: anchors, decoding and non-maximum suppression, for images of any size."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

from .detector import require, require_class


class DeltaDecoder:
    """Boxes from anchors and their deltas (R-CNN, arXiv 1311.2524, appendix C).

    Args:
        coder: a ``DeltaXYWHBBoxCoder`` of mmdet.
        name: where it stands in the config, for messages.
    """

    def __init__(self, coder: Any, name: str):
        require_class(coder, name, "DeltaXYWHBBoxCoder")
        require(f"{name}.add_ctr_clamp", coder.add_ctr_clamp, False)
        self.means, self.stds = tuple(coder.means), tuple(coder.stds)
        self.clip = coder.clip_border
        self.max_log = abs(math.log(16 / 1000))  # mmdet's wh_ratio_clip

    def __call__(self, anchors: Tensor, deltas: Tensor, size: tuple) -> Tensor:
        """Decode anchors (..., 4) and deltas (..., 4), clipped to ``size`` (H, W)."""
        deltas = deltas * deltas.new_tensor(self.stds) + deltas.new_tensor(self.means)
        shift, log = deltas[..., :2], deltas[..., 2:]
        centre = (anchors[..., :2] + anchors[..., 2:]) * 0.5
        sides = anchors[..., 2:] - anchors[..., :2]
        centre = centre + sides * shift
        sides = sides * log.clamp(-self.max_log, self.max_log).exp()
        boxes = torch.cat((centre - sides * 0.5, centre + sides * 0.5), -1)
        return clip(boxes, size) if self.clip else boxes


def clip(boxes: Tensor, size: tuple) -> Tensor:
    """Clip boxes (..., 4) to an image of ``size`` (H, W)."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    x1, x2 = x1.clamp(0, width), x2.clamp(0, width)
    y1, y2 = y1.clamp(0, height), y2.clamp(0, height)
    return torch.stack((x1, y1, x2, y2), -1)


def grid(height: int, width: int, stride: Sequence[int], like: Tensor) -> Tensor:
    """The positions of a map's cells in pixels: (height * width, 2) as x, y.

    ``stride`` is the distance of two cells in x and y.
    """
    zeros = like.new_zeros(height, width)
    x = torch.arange(width, device=like.device).to(like.dtype) * stride[0]
    y = torch.arange(height, device=like.device).to(like.dtype) * stride[1]
    return torch.stack((zeros + x, zeros + y[:, None]), -1).flatten(0, 1)


def anchors(generator: Any, level: int, map_: Tensor) -> Tensor:
    """The anchors of a level: (cells * anchors of a cell, 4).

    Args:
        generator: an ``AnchorGenerator`` of mmdet.
        level: number of the level.
        map_: its feature map (N, C, H, W).
    """
    base = generator.base_anchors[level].to(map_)
    height, width = map_.shape[-2:]
    shifts = grid(height, width, generator.strides[level], map_).repeat(1, 2)
    return (shifts[:, None] + base).flatten(0, 1)


def min_size(generator: Any) -> int:
    """The smallest side in pixels for which each level has two rows and columns.

    Levels beyond stride 32 are each half of the one before, rounded up.
    """
    deepest = max(max(stride) for stride in generator.strides)
    return max(2 * 32, deepest + 32)


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` highest of scores (N,), or all of fewer, and their indices."""
    if count <= 0:  # mmdet's word for "all"
        return scores.sort(descending=True)
    return scores.topk(torch.sym_min(count, scores.shape[0]))


def drop_small(
    smallest: float, boxes: Tensor, scores: Tensor, groups: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, 4), scores (N,) and groups (N,) without those of small boxes.

    A box stays if both its sides are longer than ``smallest`` pixels; all stay if
    that is negative.
    """
    if smallest < 0:
        return boxes, scores, groups
    large = ((boxes[:, 2:] - boxes[:, :2]) > smallest).all(1).nonzero()[:, 0]
    return boxes[large], scores[large], groups[large]


def check_nms(settings: Mapping, name: str) -> None:
    """Raise an InputError if ``settings`` ask for more than plain suppression."""
    plain = dict(type="nms", offset=0, score_threshold=0, max_num=-1)
    for key, value in plain.items():
        require(f"{name}.{key}", settings.get(key, value), value)


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, settings: Mapping, count: int
) -> Tensor:
    """Non-maximum suppression inside each group, as mmcv's ``batched_nms`` does it.

    Args:
        boxes: (N, 4), with no coordinate below zero.
        scores: (N,).
        groups: the label or level of each box (N,).
        settings: ``iou_threshold`` and perhaps ``class_agnostic``.
        count: how many boxes are kept at most; all if it is not positive.

    Returns:
        the indices of the kept boxes, best score first (K,).
    """
    if not settings.get("class_agnostic", False):
        # Boxes of different groups are moved apart. The zero is for no boxes at all.
        largest = torch.cat((boxes.flatten(), boxes.new_zeros(1))).max()
        boxes = boxes + (groups.to(boxes) * (largest + 1))[:, None]
    # torch.export takes for granted that at least two boxes are kept. So two more are
    # added, apart from all others and last by their scores, and removed again.
    added = boxes.new_tensor([[-2.0] * 2 + [-1.0] * 2, [-4.0] * 2 + [-3.0] * 2])
    boxes = torch.cat((boxes, added))
    scores = torch.cat((scores, scores.new_tensor([-1.0, -2.0])))
    kept = nms(boxes, scores, settings["iou_threshold"])[:-2]
    return kept[:count] if count > 0 else kept
