"""The features of regions: each region is pooled from the level that fits its size."""

from typing import Any

import torch
import torchvision  # noqa: F401 - registers the operators
from torch import Tensor, nn

from .detector import require, require_class


class RegionFeatures(nn.Module):
    """RoIAlign from the levels of a feature pyramid (FPN, arXiv 1612.03144).

    Args:
        extractor: a ``SingleRoIExtractor`` of mmdet with RoIAlign.
        name: where it stands in the config, for messages.
    """

    def __init__(self, extractor: Any, name: str):
        super().__init__()
        require_class(extractor, name, "SingleRoIExtractor")
        for layer in extractor.roi_layers:
            require_class(layer, f"{name}.roi_layer", "RoIAlign")
            require(f"{name}.roi_layer.pool_mode", layer.pool_mode, "avg")
        self.layers = list(extractor.roi_layers)
        self.finest_scale = extractor.finest_scale

    def forward(self, maps: tuple[Tensor, ...], regions: Tensor) -> Tensor:
        """Pool regions (K, 4) from maps (1, C, H, W) to (K, C, rows, columns)."""
        rows, columns = self.layers[0].output_size
        boxes = torch.cat((regions.new_zeros(regions.shape[0], 1), regions), 1)
        levels = self._levels(regions)
        pooled = regions.new_zeros(regions.shape[0], maps[0].shape[1], rows, columns)
        # The neck may have more maps than the extractor has layers.
        for level, (layer, map_) in enumerate(zip(self.layers, maps, strict=False)):
            members = (levels == level).nonzero()[:, 0]
            pooled[members] = torch.ops.torchvision.roi_align(
                map_,
                boxes[members],
                layer.spatial_scale,
                rows,
                columns,
                layer.sampling_ratio,
                layer.aligned,
            )
        return pooled

    def _levels(self, regions: Tensor) -> Tensor:
        """The level of each region (K,): the first below twice ``finest_scale``."""
        sides = regions[:, 2:] - regions[:, :2]
        scale = sides.prod(1).sqrt() / self.finest_scale + 1e-6  # as mmdet
        # Not by a logarithm, which ONNX rounds in another way than PyTorch.
        limits = scale.new_tensor([2.0**i for i in range(1, len(self.layers))])
        return (scale[:, None] >= limits).sum(1)
