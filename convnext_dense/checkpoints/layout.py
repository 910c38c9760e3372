"""The architecture of a ConvNeXt, read from the shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from convnext_dense.models.archs import ARCHS, NUM_STAGES

if TYPE_CHECKING:  # the table of origins is used without torch
    from torch import Tensor


class Layout(NamedTuple):
    """The architecture of a ConvNeXt.

    Attributes:
        depths: blocks of each stage.
        channels: channels of each stage.
        in_channels: channels of the image.
        use_grn: whether the blocks have GRN (ConvNeXt V2).
        layer_scale: whether the blocks have layer scale (ConvNeXt V1).
    """

    depths: tuple[int, ...]
    channels: tuple[int, ...]
    in_channels: int
    use_grn: bool
    layer_scale: bool

    @property
    def arch(self) -> str | None:
        """The name in ``ARCHS`` of these depths and channels; None if it has none."""
        names = (name for name, arch in ARCHS.items() if arch[:2] == self[:2])
        return next(names, None)


def layout(backbone: Mapping[str, Tensor]) -> Layout:
    """The architecture of the ConvNeXt with these native names and tensors.

    Sizes whose tensors are missing are 0, and stages after the last block are left
    out.
    """
    blocks = [m for m in map(re.compile(r"stages\.(\d)\.(\d+)\.").match, backbone) if m]
    stages = [{m[2] for m in blocks if int(m[1]) == i} for i in range(NUM_STAGES)]
    while stages and not stages[-1]:
        stages.pop()

    def size(name: str, dim: int = 0) -> int:
        tensor = backbone.get(name)
        return tensor.shape[dim] if tensor is not None and tensor.ndim > dim else 0

    return Layout(
        depths=tuple(map(len, stages)),
        channels=tuple(size(f"stages.{i}.0.dwconv.weight") for i in range(len(stages))),
        in_channels=size("downsample_layers.0.0.weight", 1),
        use_grn=any(name.endswith(".grn.gamma") for name in backbone),
        layer_scale="stages.0.0.gamma" in backbone,
    )
