"""The objects of a large image from those that a detector finds in its tiles.

An object on the edge of a tile is cut there. NMS keeps the piece beside the whole
object of the next tile: their IoU is low. sahi and supervision therefore compare by the
intersection over the smaller box and merge what overlaps (``postprocess/combine.py`` of
sahi). That also merges an object with another one of its class on it (obss/sahi issue
560), and boxes of one tile, on which the model has already decided.

Both tiles see what they have in common. So two boxes of two tiles are of one object if
they agree there: the IoU of the boxes, cut to the rectangle that the tiles share, is at
least ``AGREE``. Then

- of two whole boxes the better score is kept,
- a whole box replaces a cut one,
- two cut boxes, of an object that no tile shows in full, become their union.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as mask_api
from torch import Tensor
from torchvision.ops import box_iou

from .grid import Tile
from .masks import RunLengthMasks, encode

AGREE = 0.5  # IoU; as the default of NMS in mmdet and of sahi's match threshold
# A box ends at a tile's edge if it is nearer than this share of its own side, or so
# many pixels.
NEAR, NEAR_PIXELS = 0.05, 2.0


class _Objects(NamedTuple):
    """The objects of all tiles, in the coordinates of the image, in one order.

    Attributes:
        boxes: (N, 4) as x1, y1, x2, y2.
        labels, scores: (N,).
        cut: (N,) bool: the box ends at an edge of its tile inside the image.
        tile: (N,) the number of the tile.
        masks: an RLE for each, or an empty list.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    cut: Tensor
    tile: Tensor
    masks: list[dict]


class Detections:
    """Collects the objects of an image's tiles.

    Args:
        tiles: all tiles of the image.
        width, height: of the image.
    """

    def __init__(self, tiles: Sequence[Tile], width: int, height: int):
        self._tiles = tiles
        self._width = width
        self._height = height
        self._objects: list[_Objects] = []
        self._has_masks = False

    def add(self, number: int, instances: InstanceData) -> None:
        """Add the objects of a tile: its ``pred_instances``.

        Args:
            number: of the tile.
        """
        instances = instances.cpu()
        tile = self._tiles[number]
        masks = instances.get("masks")
        boxes = instances.bboxes
        if masks is not None and not boxes.any():  # SOLO has masks alone
            from mmdet.structures.mask import mask2bbox

            boxes = mask2bbox(masks)
        cut = self._cut(boxes, tile)
        self._objects.append(
            _Objects(
                boxes + boxes.new_tensor([tile.left, tile.top] * 2),
                instances.labels,
                instances.scores,
                cut,
                torch.full((len(boxes),), number),
                [
                    encode(mask, tile, self._width, self._height)
                    for mask in (() if masks is None else masks.numpy())
                ],
            )
        )
        self._has_masks |= masks is not None

    def _cut(self, boxes: Tensor, tile: Tile) -> Tensor:
        """Whether boxes (N, 4) of a tile end at an edge inside the image: (N,) bool."""
        sides = boxes[:, 2:] - boxes[:, :2]
        near = (NEAR * sides).clamp(min=NEAR_PIXELS)
        inner = torch.tensor([tile.left > 0, tile.top > 0])
        before = (boxes[:, :2] <= near) & inner
        inner = torch.tensor([tile.right < self._width, tile.bottom < self._height])
        after = (
            boxes.new_tensor([tile.width, tile.height]) - boxes[:, 2:] <= near
        ) & inner
        return (before | after).any(1)

    def merged(self) -> InstanceData:
        """The image's objects on the CPU, best score first; masks as RLE."""
        boxes, labels, scores, cut, tile, masks = zip(*self._objects, strict=True)
        objects = _Objects(
            torch.cat(boxes),
            torch.cat(labels),
            torch.cat(scores),
            torch.cat(cut),
            torch.cat(tile),
            list(itertools.chain(*masks)),
        )
        # Whole boxes come first: they replace cut ones, whatever the scores.
        order = np.lexsort((-objects.scores.numpy(), objects.cut.numpy()))
        pairs = self._pairs(objects)
        merged = objects.boxes.clone()
        rles = list(objects.masks)
        taken, kept = set[int](), list[int]()
        for index in order.tolist():
            if index in taken:
                continue
            kept.append(index)
            taken.add(index)
            group = [index]
            for member in group:  # it grows while an object reaches over more tiles
                others = [other for other in pairs[member] if other not in taken]
                taken.update(others)
                if objects.cut[index]:
                    group += others
            if len(group) > 1:
                merged[index, :2] = objects.boxes[group, :2].amin(0)
                merged[index, 2:] = objects.boxes[group, 2:].amax(0)
                if rles:
                    rles[index] = mask_api.merge([objects.masks[i] for i in group])
        kept.sort(key=lambda i: -float(objects.scores[i]))
        result = InstanceData(
            bboxes=merged[kept],
            scores=objects.scores[kept],
            labels=objects.labels[kept],
        )
        if self._has_masks:
            result.masks = RunLengthMasks([rles[i] for i in kept])
        return result

    def _pairs(self, objects: _Objects) -> list[list[int]]:
        """For each object, the objects of other tiles that are the same one."""
        pairs: list[list[int]] = [[] for _ in objects.boxes]
        of_tile = [
            (objects.tile == number).nonzero()[:, 0]
            for number in range(len(self._tiles))
        ]
        for number, tile in enumerate(self._tiles):
            for other in range(number):
                common = tile.common(self._tiles[other])
                if (
                    common is None
                    or not len(of_tile[number])
                    or not len(of_tile[other])
                ):
                    continue
                a, b = of_tile[number], of_tile[other]
                iou = box_iou(*(_clip(objects.boxes[i], common) for i in (a, b)))
                same = objects.labels[a][:, None] == objects.labels[b]
                for i, j in ((iou >= AGREE) & same).nonzero().tolist():
                    pairs[a[i]].append(int(b[j]))
                    pairs[b[j]].append(int(a[i]))
        return pairs


def _clip(boxes: Tensor, window: Tile) -> Tensor:
    """What of boxes (N, 4) lies in a window: (N, 4), without an area if nothing."""
    low = boxes.new_tensor([window.left, window.top] * 2)
    high = boxes.new_tensor([window.right, window.bottom] * 2)
    return boxes.float().clamp(low.float(), high.float())
