"""The scores that mmseg's segmentors give tiles, without a label map of each tile."""

import torch.nn.functional as F
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor, nn


def add_scores(model: nn.Module, data: dict) -> list[BaseDataElement] | None:
    """Put the scores of each tile, ``seg_logits``, into its data sample.

    It is mmseg's ``predict`` without what tiles do not need: ``postprocess_result``
    makes a label map of each, and resizes scores even if they have the tile's size.
    With 150 classes these two take half the time of a small model.

    Args:
        model: a segmentor of mmseg.
        data: ``inputs`` and ``data_samples``, as ``test_step`` takes them.

    Returns:
        the data samples; None if the model predicts or postprocesses in another way,
        or if the tiles are flipped: call its ``test_step``.
    """
    from mmseg.models.segmentors import BaseSegmentor, EncoderDecoder

    if (
        not isinstance(model, EncoderDecoder)
        or type(model).predict is not EncoderDecoder.predict
        or type(model).postprocess_result is not BaseSegmentor.postprocess_result
        or any(sample.get("flip") for sample in data["data_samples"])
    ):
        return None
    data = model.data_preprocessor(data, False)
    samples = data["data_samples"]
    batch = model.inference(data["inputs"], [sample.metainfo for sample in samples])
    for scores, sample in zip(batch, samples, strict=True):
        scores = _of_tile(scores, sample, model.align_corners)
        sample.seg_logits = PixelData(data=scores)
    return samples


def _of_tile(scores: Tensor, sample: BaseDataElement, align_corners: bool) -> Tensor:
    """Scores (classes, h, w) of the model's input as those of the tile's pixels."""
    _, height, width = scores.shape
    padding = sample.get("img_padding_size", sample.get("padding_size", [0] * 4))
    left, right, top, bottom = padding
    scores = scores[:, top : height - bottom, left : width - right]
    if scores.shape[1:] != sample.ori_shape:
        scores = F.interpolate(
            scores[None], sample.ori_shape, mode="bilinear", align_corners=align_corners
        )[0]
    return scores.sigmoid() if len(scores) == 1 else scores
