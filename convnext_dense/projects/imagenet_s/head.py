"""The head of the ImageNet-S baselines: a map of stride 32 -> logits of stride 8."""

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

# The baselines compute the loss on every 4th label in both directions. The logits of
# 920 classes for each pixel of 32 images of 224 x 224 would take 6 GB, and their
# gradients as much again.
LOSS_STRIDE = 4


@MODELS.register_module()
class PixelShuffleHead(BaseDecodeHead):
    """Dropout, a 1x1 convolution to patches of logits, and a pixel shuffle.

    The baselines' layer norm before it is the backbone's output norm.

    Args:
        patch_size: P; each position of the map yields P x P positions of logits.
        kwargs: arguments of mmseg's ``BaseDecodeHead``.

    Shapes: one of the maps, (N, in_channels, h, w), to (N, num_classes, P h, P w).
    """

    def __init__(self, patch_size: int = 4, **kwargs):
        kwargs.setdefault(
            "init_cfg",
            dict(type="TruncNormal", std=0.02, override=dict(name="conv_seg")),
        )
        super().__init__(channels=kwargs["in_channels"], **kwargs)
        self.patch_size = patch_size
        self.conv_seg = nn.Conv2d(self.channels, self.out_channels * patch_size**2, 1)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The backbone's maps -> logits."""
        x = self._transform_inputs(inputs)
        return F.pixel_shuffle(self.cls_seg(x), self.patch_size)

    def _stack_batch_gt(self, batch_data_samples: list) -> Tensor:
        labels = super()._stack_batch_gt(batch_data_samples)
        return labels[..., ::LOSS_STRIDE, ::LOSS_STRIDE]

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: list) -> Tensor:
        """Return the logits as they are: the segmentor resizes them once."""
        return seg_logits
