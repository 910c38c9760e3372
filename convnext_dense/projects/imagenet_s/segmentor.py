"""A segmentor whose memory is bounded for many classes and large images."""

from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor
from torch.nn import functional as F


@MODELS.register_module()
class BoundedEncoderDecoder(EncoderDecoder):
    """``EncoderDecoder`` that predicts the labels of large images at a smaller size.

    The logits of 920 classes for an image of 12 million pixels take 44 GB. As in the
    ImageNet-S baselines, the logits of an image with more than ``max_size`` x
    ``max_size`` pixels have ``max_size`` as their longer side, and the labels, not the
    logits, are resized to the image's size.

    Args:
        max_size: the longest side of the logits of a large image, in pixels.
        kwargs: arguments of mmseg's ``EncoderDecoder``.
    """

    def __init__(self, max_size: int = 1000, **kwargs):
        super().__init__(**kwargs)
        self.max_size = max_size

    def postprocess_result(self, seg_logits: Tensor, data_samples=None) -> list:
        """Turn logits into data samples with labels of the images' sizes.

        Shapes: (N, classes, h, w) to N samples; ``pred_sem_seg`` is (1, H, W).
        """
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
        """The size of the logits for an image of this size."""
        if height * width <= self.max_size**2:
            return height, width
        scale = self.max_size / max(height, width)
        return max(int(height * scale), 1), max(int(width * scale), 1)
