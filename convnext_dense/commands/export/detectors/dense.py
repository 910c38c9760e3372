"""RetinaNet and RTMDet: detectors that predict boxes for each cell of their maps."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .boxes import (
    DeltaDecoder,
    anchors,
    best,
    check_nms,
    clip,
    drop_small,
    grid,
    min_size,
    suppress,
)
from .detector import Detector, require, require_class


class Dense(Detector):
    """A detector with a dense head. Subclasses implement ``decode``.

    Shapes: as those of ``Detector``, without masks.
    """

    def __init__(self, model: nn.Module):
        super().__init__(model)
        head = self.model.bbox_head
        require("bbox_head.loss_cls.use_sigmoid", head.use_sigmoid_cls, True)
        self.min_size = min_size(head.prior_generator)
        self.settings = head.test_cfg
        check_nms(self.settings.nms, "test_cfg.nms")

    def decode(
        self, level: int, map_: Tensor, positions: Tensor, raw: Tensor, size: tuple
    ) -> Tensor:
        """The boxes (N, 4) of a level.

        Args:
            level: number of the level.
            map_: its predicted boxes (1, anchors * 4, H, W).
            positions: indices of the boxes to decode (N,), in the order of cells.
            raw: their predictions (N, 4).
            size: height and width of the image, to which boxes are clipped.
        """
        raise NotImplementedError

    def detect(self, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Detect the objects of a padded image (1, 3, H', W') of ``size`` (H, W)."""
        head, settings = self.model.bbox_head, self.settings
        logits, predictions = head(self.model.extract_feat(image))[:2]
        boxes, scores, labels = [], [], []
        for level, (cls, box) in enumerate(zip(logits, predictions, strict=True)):
            classes = head.cls_out_channels
            all_scores = cls[0].permute(1, 2, 0).sigmoid().reshape(-1)
            sure = (all_scores > settings.get("score_thr", 0)).nonzero()[:, 0]
            top, order = best(all_scores[sure], settings.get("nms_pre", -1))
            chosen = sure[order]
            positions = chosen // classes
            raw = box[0].permute(1, 2, 0).reshape(-1, 4)[positions]
            boxes.append(self.decode(level, box, positions, raw, size))
            scores.append(top)
            labels.append(chosen % classes)
        smallest = settings.get("min_bbox_size", -1)
        sides = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
        box, score, label = drop_small(smallest, *sides)
        kept = suppress(box, score, label, settings.nms, settings.max_per_img)
        return box[kept], score[kept], label[kept]


class RetinaNet(Dense):
    """RetinaNet (arXiv 1708.02002)."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        head = self.model.bbox_head
        require_class(head, "bbox_head", "RetinaHead", "RetinaSepBNHead")
        require_class(
            head.prior_generator, "bbox_head.anchor_generator", "AnchorGenerator"
        )
        self.decoder = DeltaDecoder(head.bbox_coder, "bbox_head.bbox_coder")

    def decode(
        self, level: int, map_: Tensor, positions: Tensor, raw: Tensor, size: tuple
    ) -> Tensor:
        """The boxes (N, 4) of a level, from its anchors."""
        priors = anchors(self.model.bbox_head.prior_generator, level, map_)
        return self.decoder(priors[positions], raw, size)


class RTMDet(Dense):
    """RTMDet (arXiv 2212.07784) for boxes."""

    # The neck's maps double in size from level to level, without a rest.
    divisor: ClassVar[int] = 32

    def __init__(self, model: nn.Module):
        super().__init__(model)
        head = self.model.bbox_head
        require_class(head, "bbox_head", "RTMDetHead", "RTMDetSepBNHead")
        self.points: Any = head.prior_generator
        require_class(self.points, "bbox_head.anchor_generator", "MlvlPointGenerator")
        require_class(head.bbox_coder, "bbox_head.bbox_coder", "DistancePointBBoxCoder")
        require("bbox_head.with_objectness", head.with_objectness, False)

    def decode(
        self, level: int, map_: Tensor, positions: Tensor, raw: Tensor, size: tuple
    ) -> Tensor:
        """The boxes (N, 4) of a level, from distances to their sides."""
        stride = self.points.strides[level]
        offset = self.points.offset
        height, width = map_.shape[-2:]
        offsets = map_.new_tensor([offset * side for side in stride])
        point = (grid(height, width, stride, map_) + offsets)[positions]
        boxes = torch.cat((point - raw[:, :2], point + raw[:, 2:]), -1)
        return clip(boxes, size)
