"""The roadmap from ResNet-50 to ConvNeXt-T: a backbone for each step of the paper.

For studying the design. To train a model, use ``convnext_dense.ConvNeXt``, where the
roadmap ends. Source: "A ConvNet for the 2020s" (arXiv 2201.03545), section 2; table 10
for the order of the steps and their multiply-adds. Every step includes those before
it, except the kernel sizes 9 and 11, which the authors tried and dropped. Layer scale
belongs to the training recipe, not to a step, and is left out.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from convnext_dense.errors import InputError
from convnext_dense.models.archs import NORM_EPS
from convnext_dense.models.convnext import (
    FeatureInfo,
    drop_path_rates,
    resolve_out_indices,
)
from convnext_dense.models.drop_path import DropPath
from convnext_dense.models.image_checks import check_size
from convnext_dense.models.layer_norm import LayerNorm2d


class Design(NamedTuple):
    """The design choices that the steps change. The defaults are ResNet-50.

    Attributes:
        depths: number of blocks in each stage.
        patchify_stem: a 4x4 convolution with stride 4 instead of 7x7 and max pooling.
        depthwise: whether the spatial convolution of a block is depthwise.
        width: width of stage 0; each stage doubles it.
        inverted_bottleneck: blocks are wide inside and narrow outside.
        depthwise_first: the spatial convolution is before the two pointwise ones.
        kernel_size: of the spatial convolution.
        gelu: GELU instead of ReLU.
        fewer_activations: one in a block, between the pointwise convolutions.
        fewer_norms: one in a block, after the spatial convolution.
        layer_norm: layer norm instead of batch norm.
        separate_downsampling: a norm and a 2x2 convolution with stride 2 between
            stages, and a norm on each returned map.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    patchify_stem: bool = False
    depthwise: bool = False
    width: int = 64
    inverted_bottleneck: bool = False
    depthwise_first: bool = False
    kernel_size: int = 3
    gelu: bool = False
    fewer_activations: bool = False
    fewer_norms: bool = False
    layer_norm: bool = False
    separate_downsampling: bool = False


def _steps() -> dict[str, Design]:
    """The design of each step, by the step's name."""
    changes: dict[str, dict[str, Any]] = {
        "resnet50": {},
        "stage_ratio": dict(depths=(3, 3, 9, 3)),
        "patchify_stem": dict(patchify_stem=True),
        "depthwise_conv": dict(depthwise=True),
        "increase_width": dict(width=96),
        "inverted_bottleneck": dict(inverted_bottleneck=True),
        "move_up_depthwise": dict(depthwise_first=True),
        "kernel_5": dict(kernel_size=5),
        "kernel_7": dict(kernel_size=7),
        "kernel_9": dict(kernel_size=9),
        "kernel_11": dict(kernel_size=11),
        "gelu": dict(gelu=True, kernel_size=7),  # beyond 7 gained nothing
        "fewer_activations": dict(fewer_activations=True),
        "fewer_norms": dict(fewer_norms=True),
        "layer_norm": dict(layer_norm=True),
        "separate_downsampling": dict(separate_downsampling=True),
    }
    steps, design = {}, Design()
    for name, change in changes.items():
        steps[name] = design = design._replace(**change)
    return steps


STEPS = _steps()


@MODELS.register_module()
class ModernizedResNet(BaseModule):
    """ResNet-50 modernized up to a step of the paper's roadmap.

    Args:
        step: a name in ``STEPS``, from ``resnet50`` to ``separate_downsampling``,
            which is ConvNeXt-T.
        in_channels: channels of the input image.
        drop_path_rate: drop path rate of the last block; it grows linearly
            from 0 at the first.
        out_indices: the stages whose maps are returned, 0 to 3.
        init_cfg: mmengine's configuration of the initial weights.

    Raises:
        InputError: (a ValueError) the step or a stage does not exist, or, from
            ``forward``, a side of the image is shorter than 32 pixels.

    Shapes: (N, in_channels, H, W) to a tuple of (N, channels, H / stride,
    W / stride) with strides 4, 8, 16 and 32, finest first. ``feature_info`` lists
    the channels: 256 to 2048 with bottlenecks, 384 to 3072 from ``increase_width``
    on, 96 to 768 with inverted bottlenecks.
    """

    def __init__(
        self,
        step: str,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] | int = (0, 1, 2, 3),
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        if step not in STEPS:
            raise InputError(
                f"unknown step {step!r} of ModernizedResNet: use one of "
                f"{', '.join(STEPS)}"
            )
        design = STEPS[step]
        self.out_indices = resolve_out_indices(out_indices)
        depths = design.depths[: max(self.out_indices) + 1]
        widths = [design.width * 2**stage for stage in range(len(depths))]
        channels = [w if design.inverted_bottleneck else 4 * w for w in widths]

        self.stem = _stem(design, in_channels)
        self.downsample_layers = nn.ModuleList([nn.Identity()])
        for before, after in pairwise(channels):
            self.downsample_layers.append(
                nn.Sequential(_norm(design, before), nn.Conv2d(before, after, 2, 2))
                if design.separate_downsampling
                else nn.Identity()
            )
        rates = drop_path_rates(drop_path_rate, design.depths)
        self.stages = nn.ModuleList()
        c = design.width
        for stage, depth in enumerate(depths):
            if design.separate_downsampling:
                c = channels[stage]
            blocks = []
            for block in range(depth):
                halve = stage > 0 and block == 0 and not design.separate_downsampling
                stride = 2 if halve else 1
                blocks.append(
                    RoadmapBlock(design, c, widths[stage], stride, next(rates))
                )
                c = channels[stage]
            self.stages.append(nn.Sequential(*blocks))
        if design.separate_downsampling:
            for i in self.out_indices:
                self.add_module(f"norm{i}", _norm(design, channels[i]))
        self.feature_info = [
            FeatureInfo(channels[i], 4 * 2**i) for i in self.out_indices
        ]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (N, in_channels, H, W) -> the maps of ``out_indices``."""
        check_size(x, type(self).__name__)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        maps = []
        for i, (downsample, stage) in enumerate(
            zip(self.downsample_layers, self.stages, strict=True)
        ):
            x = stage(downsample(x))
            if i in self.out_indices:
                norm = getattr(self, f"norm{i}", None)
                maps.append(norm(x) if norm else x)
        return tuple(maps)


class RoadmapBlock(nn.Module):
    """A residual block of one spatial and two pointwise convolutions.

    Args:
        design: the design of the step.
        c: channels of the input.
        width: the width of the stage.
        stride: stride of the spatial convolution and of the shortcut.
        drop_path_rate: drop path rate of the block.

    Shapes: (N, c, H, W) -> (N, channels, H / stride, W / stride), where channels
    is ``width`` for an inverted bottleneck and 4 x ``width`` for a bottleneck.
    """

    def __init__(
        self, design: Design, c: int, width: int, stride: int, drop_path_rate: float
    ):
        super().__init__()
        inside, channels = width, 4 * width
        if design.inverted_bottleneck:
            inside, channels = channels, inside
        if design.depthwise_first:
            convs = [
                _spatial(design, c, stride),
                _pointwise(design, c, inside),
                _pointwise(design, inside, channels),
            ]
        else:
            convs = [
                _pointwise(design, c, inside),
                _spatial(design, inside, stride),
                _pointwise(design, inside, channels),
            ]
        act = nn.GELU() if design.gelu else nn.ReLU()
        layers: list[nn.Module] = []
        for i, conv in enumerate(convs):
            layers.append(conv)
            if i == 0 or not design.fewer_norms:
                layers.append(_norm(design, conv.out_channels))
            if i == 1 or (i == 0 and not design.fewer_activations):
                layers.append(act)
        self.branch = nn.Sequential(*layers)
        self.drop_path = DropPath(drop_path_rate)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c != channels:
            self.shortcut = nn.Sequential(
                _pointwise(design, c, channels, stride), _norm(design, channels)
            )
        self.act = nn.Identity() if design.fewer_activations else act

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to the shortcut."""
        return self.act(self.shortcut(x) + self.drop_path(self.branch(x)))


def _stem(design: Design, in_channels: int) -> nn.Sequential:
    """The stem: image -> map with stride 4."""
    if not design.patchify_stem:
        return nn.Sequential(
            nn.Conv2d(in_channels, design.width, 7, 2, padding=3, bias=False),
            _norm(design, design.width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
        )
    stem = nn.Sequential(nn.Conv2d(in_channels, design.width, 4, 4))
    if design.separate_downsampling:
        stem.append(_norm(design, design.width))
    return stem


def _norm(design: Design, channels: int) -> nn.Module:
    """A norm of the design's type."""
    if design.layer_norm:
        return LayerNorm2d(channels, eps=NORM_EPS)
    return nn.BatchNorm2d(channels)


def _pointwise(design: Design, c: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution; with a bias if no norm follows every convolution."""
    return nn.Conv2d(c, channels, 1, stride, bias=design.fewer_norms)


def _spatial(design: Design, channels: int, stride: int) -> nn.Conv2d:
    """The block's convolution over neighbouring pixels, depthwise or dense."""
    return nn.Conv2d(
        channels,
        channels,
        design.kernel_size,
        stride,
        padding=design.kernel_size // 2,
        groups=channels if design.depthwise else 1,
        bias=design.fewer_norms,
    )
