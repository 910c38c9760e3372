"""Faster, Mask and Cascade R-CNN: proposals first, then their classes and boxes."""

from typing import Any

import torch
from torch import Tensor, nn

from . import masks
from .boxes import (
    DeltaDecoder,
    anchors,
    best,
    check_nms,
    drop_small,
    min_size,
    suppress,
)
from .detector import Detector, refuse, require, require_class
from .regions import RegionFeatures

BOX_HEADS = ("ConvFCBBoxHead", "Shared2FCBBoxHead", "Shared4Conv1FCBBoxHead")


class Proposals(nn.Module):
    """The region proposal network of Faster R-CNN (arXiv 1506.01497, section 3).

    Args:
        head: an ``RPNHead`` of mmdet.
    """

    def __init__(self, head: Any):
        super().__init__()
        require_class(head, "rpn_head", "RPNHead")
        require("rpn_head.loss_cls.use_sigmoid", head.use_sigmoid_cls, True)
        require_class(
            head.prior_generator, "rpn_head.anchor_generator", "AnchorGenerator"
        )
        check_nms(head.test_cfg.nms, "test_cfg.rpn.nms")
        self.head = head
        self.decoder = DeltaDecoder(head.bbox_coder, "rpn_head.bbox_coder")

    def forward(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Propose boxes (K, 4) from maps (1, C, H, W) of an image of ``size``."""
        settings = self.head.test_cfg
        all_boxes, all_scores, levels = [], [], []
        for level, (logits, deltas) in enumerate(zip(*self.head(maps), strict=True)):
            scores = logits[0].permute(1, 2, 0).sigmoid().reshape(-1)
            scores, order = best(scores, settings.get("nms_pre", -1))
            priors = anchors(self.head.prior_generator, level, deltas)[order]
            deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)[order]
            all_boxes.append(self.decoder(priors, deltas, size))
            all_scores.append(scores)
            levels.append(torch.full_like(order, level))
        boxes, scores, groups = drop_small(
            settings.get("min_bbox_size", -1),
            torch.cat(all_boxes),
            torch.cat(all_scores),
            torch.cat(levels),
        )
        count = settings.max_per_img
        return boxes[suppress(boxes, scores, groups, settings.nms, count)]


class BoxHead(nn.Module):
    """The classes and boxes of regions.

    Args:
        head: a head of one of ``BOX_HEADS``.
        extractor: the ``SingleRoIExtractor`` of its features.
    """

    def __init__(self, head: Any, extractor: Any):
        super().__init__()
        require_class(head, "roi_head.bbox_head", *BOX_HEADS)
        # Seesaw loss, for example, has its own.
        for name in ("custom_cls_channels", "custom_activation"):
            require(f"roi_head.bbox_head.loss_cls.{name}", getattr(head, name), False)
        self.head = head
        self.features = RegionFeatures(extractor, "roi_head.bbox_roi_extractor")
        self.decoder = DeltaDecoder(head.bbox_coder, "roi_head.bbox_head.bbox_coder")

    def forward(
        self, maps: tuple[Tensor, ...], regions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (K, classes + 1) and deltas (K, classes or 1, 4) of regions (K, 4)."""
        logits, deltas = self.head(self.features(maps, regions))
        return logits, deltas.unflatten(1, (-1, 4))

    def decode(
        self, regions: Tensor, deltas: Tensor, labels: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """The boxes (K, 4) of regions (K, 4) for their labels (K,)."""
        if deltas.shape[1] == 1:
            deltas = deltas[:, 0]
        else:
            index = labels[:, None, None].expand(-1, 1, 4)
            deltas = deltas.gather(1, index)[:, 0]
        return self.decoder(regions, deltas, size)


class MaskHead(nn.Module):
    """The masks of boxes (Mask R-CNN, arXiv 1703.06870).

    Args:
        head: an ``FCNMaskHead`` of mmdet.
        extractor: the ``SingleRoIExtractor`` of its features.
    """

    def __init__(self, head: Any, extractor: Any):
        super().__init__()
        require_class(head, "roi_head.mask_head", "FCNMaskHead")
        self.head = head
        self.features = RegionFeatures(extractor, "roi_head.mask_roi_extractor")

    def forward(
        self, maps: tuple[Tensor, ...], boxes: Tensor, labels: Tensor
    ) -> Tensor:
        """Probabilities (K, h, w) in the frames of boxes (K, 4) of labels (K,)."""
        logits = self.head(self.features(maps, boxes))
        if self.head.class_agnostic:
            return logits[:, 0].sigmoid()
        index = labels[:, None, None, None].expand(-1, 1, *logits.shape[2:])
        return logits.gather(1, index)[:, 0].sigmoid()


class CascadeRCNN(Detector):
    """Cascade R-CNN (arXiv 1712.00726); with one stage it is Faster or Mask R-CNN."""

    box_heads: Any
    mask_heads: Any

    def __init__(self, model: nn.Module):
        super().__init__(model)
        roi_head = self.model.roi_head
        require_class(roi_head, "roi_head", "CascadeRoIHead", "StandardRoIHead")
        require("roi_head.shared_head", roi_head.with_shared_head, False)
        self.settings = roi_head.test_cfg
        check_nms(self.settings.nms, "test_cfg.rcnn.nms")
        self.min_size = min_size(self.model.rpn_head.prior_generator)
        self.proposals = Proposals(self.model.rpn_head)
        self.box_heads = nn.ModuleList(
            map(
                BoxHead,
                _stages(roi_head.bbox_head),
                _stages(roi_head.bbox_roi_extractor),
            )
        )
        self.mask_heads = nn.ModuleList()
        if roi_head.with_mask:
            threshold = self.settings.mask_thr_binary
            if threshold < 0:
                refuse("test_cfg.rcnn.mask_thr_binary", threshold, "0 or more")
            self.mask_heads.extend(
                map(
                    MaskHead,
                    _stages(roi_head.mask_head),
                    _stages(roi_head.mask_roi_extractor),
                )
            )

    def detect(self, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Detect the objects of a padded image (1, 3, H', W') of ``size`` (H, W)."""
        maps = self.model.extract_feat(image)
        boxes, scores, labels = self._boxes(maps, size)
        if not self.mask_heads:
            return boxes, scores, labels
        stages = [head(maps, boxes, labels) for head in self.mask_heads]
        mask = masks.paste(torch.stack(stages).mean(0), boxes, size)
        return boxes, scores, labels, mask >= self.settings.mask_thr_binary

    def _boxes(
        self, maps: tuple[Tensor, ...], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The boxes, scores and labels of an image of ``size``."""
        regions = self.proposals(maps, size)
        head, *others = self.box_heads
        logits, deltas = head(maps, regions)
        stage_logits = [logits]
        for following in others:
            labels = logits[:, :-1].argmax(1)
            regions = head.decode(regions, deltas, labels, size)
            head = following
            logits, deltas = head(maps, regions)
            stage_logits.append(logits)
        # A stage's logits, not its probabilities, are averaged, as in mmdet.
        probabilities = torch.stack(stage_logits).mean(0).softmax(1)[:, :-1]
        classes = probabilities.shape[1]
        sure = (probabilities.reshape(-1) > self.settings.score_thr).nonzero()[:, 0]
        region, labels = sure // classes, sure % classes
        boxes = head.decode(regions[region], deltas[region], labels, size)
        scores = probabilities.reshape(-1)[sure]
        count = self.settings.max_per_img
        kept = suppress(boxes, scores, labels, self.settings.nms, count)
        return boxes[kept], scores[kept], labels[kept]


def _stages(modules: Any) -> list[nn.Module]:
    """The module of each stage; Mask R-CNN has one, which is not in a list."""
    return list(modules) if isinstance(modules, nn.ModuleList) else [modules]
