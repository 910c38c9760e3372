"""Mask2Former: a transformer that decodes queries into masks."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .. import comparison
from .detector import Detector, refuse, require_class

INSTANCE = 1000  # mmdet's INSTANCE_OFFSET


class Mask2Former(Detector):
    """Mask2Former (arXiv 2112.01527) for instance and panoptic segmentation.

    Shapes: as those of ``Detector``. If ``test_cfg.panoptic_on`` is set, there is also
    ``panoptic`` (H, W) as int32: the class of each pixel plus 1000 times the number of
    its object, which counts from 1. Stuff has no number. The number of classes stands
    for no segment.
    """

    def __init__(self, model: nn.Module):
        super().__init__(model)
        head, fusion = self.model.panoptic_head, self.model.panoptic_fusion_head
        require_class(head, "panoptic_head", "Mask2FormerHead")
        name = "panoptic_head.pixel_decoder"
        require_class(head.pixel_decoder, name, "MSDeformAttnPixelDecoder")
        require_class(fusion, "panoptic_fusion_head", "MaskFormerFusionHead")
        self.settings: Any = fusion.test_cfg
        self.instances = self.settings.get("instance_on", False)
        self.panoptic = self.settings.get("panoptic_on", True)
        outputs = self.instances or self.panoptic
        if not outputs:
            refuse("test_cfg.instance_on and panoptic_on", False, "either")
        self.classes: int = fusion.num_classes
        self.things: int = fusion.num_things_classes

    compare = staticmethod(comparison.segments)

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        instances = ["boxes", "scores", "labels", "masks"] if self.instances else []
        return [*instances, *(["panoptic"] if self.panoptic else [])]

    def collect(self, sample: Any) -> tuple[Tensor, ...]:
        """The outputs, from a sample with mmdet's predictions."""
        outputs: tuple[Tensor, ...] = ()
        if self.instances:
            instances = sample.pred_instances
            outputs = (
                instances.bboxes,
                instances.scores,
                instances.labels,
                instances.masks,
            )
        if self.panoptic:
            outputs = (*outputs, sample.pred_panoptic_seg.sem_seg[0])
        return outputs

    def detect(self, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Segment a padded image (1, 3, H', W') of ``size`` (H, W)."""
        meta = dict(img_shape=size, batch_input_shape=tuple(image.shape[-2:]))
        logits, masks = self.model.panoptic_head.predict(
            self.model.extract_feat(image), [SimpleNamespace(metainfo=meta)]
        )
        height, width = size
        logits, masks = logits[0], masks[0]
        # Not by a slice: a trace asks whether it is contiguous, which depends on the
        # size, and a torch.export file then refuses the other sizes.
        for dim, side in ((1, height), (2, width)):
            masks = masks.index_select(dim, torch.arange(side, device=masks.device))
        outputs: tuple[Tensor, ...] = ()
        if self.instances:
            outputs = self._instances(logits, masks)
        if self.panoptic:
            outputs = (*outputs, self._panoptic(logits, masks))
        return outputs

    def _instances(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Boxes, scores, labels and masks of the things.

        Shapes: logits (Q, classes + 1) and masks (Q, H, W), as logits.
        """
        scores = logits.softmax(-1)[:, :-1].flatten()
        scores, best = scores.topk(self.settings.get("max_per_image", 100))
        labels = best % self.classes
        if self.things < self.classes:
            is_thing = (labels < self.things).nonzero()[:, 0]
            scores, best, labels = scores[is_thing], best[is_thing], labels[is_thing]
        masks = masks[best // self.classes]
        inside = masks > 0
        area = inside.float().sum((1, 2))
        confidence = (masks.sigmoid() * inside).sum((1, 2)) / (area + 1e-6)
        scores, order = (scores * confidence).sort(descending=True)
        inside = inside[order]
        return mask_boxes(inside), scores, labels[order], inside

    def _panoptic(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The segment of each pixel (H, W).

        Shapes: logits (Q, classes + 1) and masks (Q, H, W), as logits. A query that
        mmdet leaves out has a weight of -1 here, so that it wins no pixel.
        """
        settings, probabilities = self.settings, masks.sigmoid()
        scores, labels = logits.softmax(-1).max(-1)
        kept = (labels != self.classes) & (
            scores > settings.get("object_mask_thr", 0.8)
        )
        weights = scores[:, None, None] * probabilities
        winner = torch.where(kept[:, None, None], weights, -1).argmax(0)
        sure = probabilities >= 0.5
        pixels = winner.flatten()
        won = torch.zeros_like(scores, dtype=torch.float64).index_add(
            0, pixels, torch.ones_like(pixels, dtype=torch.float64)
        )
        area = sure.double().sum((1, 2))
        kept = kept & (won > 0) & (area > 0)
        kept = kept & (won / area >= settings.get("iou_thr", 0.8))
        is_thing = kept & (labels < self.things)
        segments = labels + INSTANCE * torch.where(is_thing, is_thing.cumsum(0), 0)
        shown = kept[winner]
        if settings.get("filter_low_score", False):
            shown = shown & sure.gather(0, winner[None])[0]
        return torch.where(shown, segments[winner], self.classes).int()


def mask_boxes(masks: Tensor) -> Tensor:
    """The box of each mask (N, H, W) -> (N, 4) as x1, y1, x2, y2; zeros if empty."""
    bounds = []
    for dim in (1, 2):  # x, then y
        covered = masks.any(dim)
        place = torch.arange(covered.shape[1], device=masks.device)
        end = torch.where(covered, place + 1, 0).amax(1)
        start = torch.where(covered, place, covered.shape[1]).amin(1)
        bounds.append((torch.where(end > 0, start, 0), end))
    (x1, x2), (y1, y2) = bounds
    return torch.stack((x1, y1, x2, y2), -1).float()
