"""Batch normalisation that can be exported for any number of regions.

PyTorch asks whether the input of its own is empty. A trace cannot answer that where
the number of regions depends on the image.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class FixedBatchNorm2d(nn.Module):
    """Batch normalisation with running statistics, as in a test.

    Args:
        norm: the ``nn.BatchNorm2d`` or ``nn.SyncBatchNorm`` to compute.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: Any):
        super().__init__()
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -norm.running_mean * scale
        if norm.bias is not None:
            shift = shift + norm.bias
        self.register_buffer("scale", scale.detach()[:, None, None])
        self.register_buffer("shift", shift.detach()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        return x * self.scale + self.shift


def replace_norms(model: nn.Module) -> None:
    """Replace each batch normalisation inside ``model`` by ``FixedBatchNorm2d``."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and child.running_var is not None:
                setattr(parent, name, FixedBatchNorm2d(child))
