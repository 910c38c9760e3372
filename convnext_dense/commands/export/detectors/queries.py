"""DETR, Deformable DETR, DINO: transformers that decode queries into boxes."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .detector import Detector, require


class DETR(Detector):
    """DETR (arXiv 2005.12872), Conditional DETR and DAB-DETR.

    Shapes: as those of ``Detector``, without masks; K is ``test_cfg.max_per_img``.
    """

    def __init__(self, model: nn.Module):
        super().__init__(model)
        # mmdet's mask of the padding depends on whether the image has any.
        divisor = self.pad_size_divisor
        require("data_preprocessor.pad_size_divisor", divisor, 1)

    def detect(self, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Detect the objects of a padded image (1, 3, H', W') of ``size`` (H, W)."""
        sample = _sample(image, size)
        states = self.decode(self.model.extract_feat(image), sample)
        (result,) = self.model.bbox_head.predict(
            **states, batch_data_samples=[sample], rescale=False
        )
        return result.bboxes, result.scores, result.labels

    def decode(self, feats: Sequence[Tensor], sample: Any) -> dict[str, Any]:
        """The decoder's outputs for a pyramid: what mmdet's head predicts from."""
        return self.model.forward_transformer(feats, [sample])


class DeformableDETR(DETR):
    """Deformable DETR (arXiv 2010.04159) and DINO (arXiv 2203.03605)."""

    def __init__(self, model: nn.Module):
        Detector.__init__(self, model)
        self.min_size = self._min_size()

    def _min_size(self) -> int:
        """The smallest side in pixels with which the model can be traced.

        The deepest level of a square image has two rows and columns. In a two-stage
        detector there is a cell for each query.
        """
        model = self.model
        # The neck halves the last map of the backbone for each further level.
        further = len(getattr(getattr(model, "neck", None), "extra_convs", None) or ())
        strides = [32 * 2 ** (further - i) for i in range(model.num_feature_levels)]
        queries = model.num_queries if model.as_two_stage else 0
        size = 32 * (2**further + 1)
        while sum((size // stride) ** 2 for stride in strides) < queries:
            size += 32
        return size

    def decode(self, feats: Sequence[Tensor], sample: Any) -> dict[str, Any]:
        """The decoder's outputs for a pyramid: what mmdet's head predicts from."""
        model = self.model
        encoder_inputs, decoder_inputs = self._tokens(feats, sample)
        encoded = model.forward_encoder(**encoder_inputs)
        queries, _ = model.pre_decoder(**encoded)
        return model.forward_decoder(**decoder_inputs, **queries)

    def _tokens(self, feats: Sequence[Tensor], sample: Any) -> tuple[dict, dict]:
        """The inputs of the encoder and of the decoder: all levels as one sequence.

        mmdet's ``pre_transformer`` does the same with the sizes in a tensor.
        """
        model = self.model
        sizes = [map_.shape[-2:] for map_ in feats]
        masks: list[Any] = [None] * len(feats)
        if self.pad_size_divisor > 1:
            masks = [_padding(sample, size) for size in sizes]
        tokens, positions = [], []
        for level, (map_, mask) in enumerate(zip(feats, masks, strict=True)):
            position = model.positional_encoding(mask, input=map_)
            tokens.append(map_.flatten(2).transpose(1, 2))
            position = position.flatten(2).transpose(1, 2)
            positions.append(position + model.level_embed[level])
        feat = torch.cat(tokens, 1)
        feat_mask, ratios = None, feat.new_ones(1, len(feats), 2)
        if self.pad_size_divisor > 1:
            feat_mask = torch.cat([mask.flatten(1) for mask in masks], 1)
            ratios = torch.stack([model.get_valid_ratio(mask) for mask in masks], 1)
        shared = dict(spatial_shapes=sizes, level_start_index=None, valid_ratios=ratios)
        feat_pos = torch.cat(positions, 1)
        return (
            dict(feat=feat, feat_mask=feat_mask, feat_pos=feat_pos, **shared),
            dict(memory_mask=feat_mask, **shared),
        )


def _sample(image: Tensor, size: tuple[int, int]) -> Any:
    """What mmdet's code reads of a ``DetDataSample``.

    A ``DetDataSample`` copies its sizes, which the sizes of a trace do not allow.
    """
    meta = dict(img_shape=size, batch_input_shape=tuple(image.shape[-2:]))
    return SimpleNamespace(metainfo=meta, **meta)


def _padding(sample: Any, size: Sequence[int]) -> Tensor:
    """A mask (1, *size) that is true where a feature map shows padding."""
    (height, width), (rows, columns) = sample.img_shape, sample.batch_input_shape
    below = torch.arange(rows)[:, None] >= height
    right = torch.arange(columns) >= width
    mask = (below | right).float()
    return F.interpolate(mask[None, None], list(size))[0].bool()
