"""DETR, Deformable DETR, DINO: transformers that decode queries into boxes."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .. import comparison
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
    """Deformable DETR (arXiv 2010.04159) and DINO (arXiv 2203.03605).

    A two-stage detector, as DINO is, takes its queries from the cells of the encoder's
    maps with the best scores. It has one more output, ``cells`` (Q,) as int64: the
    cell of each query, counted over all levels. Rounding decides the order of cells
    with nearly the same scores. In DINO this changes the boxes: each query has its
    own embedding, and gets another cell.
    """

    def __init__(self, model: nn.Module):
        Detector.__init__(self, model)
        self.min_size = self._min_size()
        self.two_stage: bool = self.model.as_two_stage

    compare = staticmethod(comparison.queries)

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        return [*super().outputs, *(["cells"] if self.two_stage else [])]

    def reference(self, image: Tensor) -> tuple[Tensor, ...]:
        """The outputs for an RGB image (1, 3, H, W) by the model's ``test_step``."""
        return self._reference(image, _Cells())

    def reference_like(
        self, image: Tensor, outputs: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """The outputs of ``reference`` with the queries of an exported file.

        The file's ``cells`` become the queries if their scores are the best ones up to
        rounding. ``cells`` of the result are those of PyTorch all the same.

        Args:
            image: the image.
            outputs: the file's outputs for the image.
        """
        return self._reference(image, _Cells(outputs[-1] if self.two_stage else None))

    def _reference(self, image: Tensor, cells: "_Cells") -> tuple[Tensor, ...]:
        with cells:
            outputs = super().reference(image)
        return (*outputs, cells.best) if self.two_stage else outputs

    def collect(self, sample: Any) -> tuple[Tensor, ...]:
        """Boxes, scores and labels, from a sample with mmdet's predictions."""
        instances = sample.pred_instances
        return instances.bboxes, instances.scores, instances.labels

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

    def detect(self, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Detect the objects of a padded image (1, 3, H', W') of ``size`` (H, W)."""
        with _Cells() as cells:
            outputs = super().detect(image, size)
        return (*outputs, cells.best) if self.two_stage else outputs

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


class _Cells(TorchFunctionMode):
    """Records which cells become queries, and replaces them on request.

    mmdet calls ``torch.topk`` for this alone.

    Args:
        replacement: cells (Q,) that become the queries instead of the best ones. The
            scores must be equal up to ``comparison.MAP_TOLERANCE``.
    """

    best: Tensor

    def __init__(self, replacement: Tensor | None = None):
        super().__init__()
        self.replacement = replacement

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call ``func``."""
        output = func(*args, **(kwargs or {}))
        if func is not torch.topk:
            return output
        scores, (values, cells) = args[0], output
        self.best = cells[0]
        if self.replacement is None:
            return output
        tolerance = comparison.MAP_TOLERANCE * scores.abs().max()
        replaced = scores[:, self.replacement]
        distinct = len(self.replacement.unique()) == len(self.best)
        if distinct and ((replaced - values).abs() <= tolerance).all():
            return replaced, self.replacement[None]
        return output


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
