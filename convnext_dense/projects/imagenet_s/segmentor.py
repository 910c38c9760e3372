"""A segmentor for many classes and photographs of any size."""

from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor
from torch.nn import functional as F


@MODELS.register_module()
class BoundedEncoderDecoder(EncoderDecoder):
    """``EncoderDecoder`` that decides on large images at a smaller size.

    920 logits for each pixel of a photograph of 12 million take 44 GB. As in the
    ImageNet-S baselines, an image of more than ``max_size`` x ``max_size`` pixels
    is decided on with its longer side at ``max_size``, and the labels, not the
    logits, are brought to the image's size.

    Args:
        max_size: pixels.
        kwargs: of mmseg's ``EncoderDecoder``.
    """

    def __init__(self, max_size: int = 1000, **kwargs):
        super().__init__(**kwargs)
        self.max_size = max_size

    def postprocess_result(self, seg_logits: Tensor, data_samples=None) -> list:
        """Shapes: (N, classes, h, w) to N samples; ``pred_sem_seg`` is (1, H, W)."""
        if data_samples is None:
            return super().postprocess_result(seg_logits)
        shapes = [sample.ori_shape for sample in data_samples]
        for sample, shape in zip(data_samples, shapes, strict=True):
            sample.set_metainfo(dict(ori_shape=self._bounded(*shape)))
        data_samples = super().postprocess_result(seg_logits, data_samples)
        for sample, shape in zip(data_samples, shapes, strict=True):
            sample.set_metainfo(dict(ori_shape=shape))
            labels = sample.pred_sem_seg.data
            if labels.shape[-2:] != tuple(shape):
                labels = F.interpolate(labels[None].float(), shape)[0].long()
                sample.set_data(dict(pred_sem_seg=PixelData(data=labels)))
        return data_samples

    def _bounded(self, height: int, width: int) -> tuple[int, int]:
        if height * width <= self.max_size**2:
            return height, width
        scale = self.max_size / max(height, width)
        return max(int(height * scale), 1), max(int(width * scale), 1)
