"""ImageNet-S: semi-supervised semantic segmentation of ImageNet, 919 categories.

Sources: "Large-scale Unsupervised Semantic Segmentation" (arXiv 2106.03149) and
its baselines (github.com/LUSSeg/ImageNetSegModel). This package needs MMSegmentation,
so only configs of ImageNet-S import it.
"""

from .dataset import ImageNetSDataset, LoadImageNetSAnnotations
from .head import PixelShuffleHead
from .metric import ImageNetSMetric
from .segmentor import BoundedEncoderDecoder
from .torchvision_transforms import TorchvisionTransforms

__all__ = [
    "BoundedEncoderDecoder",
    "ImageNetSDataset",
    "ImageNetSMetric",
    "LoadImageNetSAnnotations",
    "PixelShuffleHead",
    "TorchvisionTransforms",
]
