"""The ConvNeXt backbone: four stages, a feature map from each, every map normalised."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from mmengine.model import BaseModule, update_init_info
from mmengine.registry import MODELS, WEIGHT_INITIALIZERS
from torch import Tensor, nn

from convnext_dense.errors import InputError

from . import fused
from .archs import NUM_STAGES, resolve_arch
from .block import Block
from .fused import PatchConv2d
from .layer_norm import LayerNorm2d

MIN_SIZE = 32  # the deepest map has stride 32


class FeatureInfo(NamedTuple):
    """What one output map looks like: C, and input pixels per map pixel."""

    channels: int
    stride: int


@MODELS.register_module()
class ConvNeXt(BaseModule):
    """ConvNeXt and ConvNeXt V2 for dense prediction (arXiv 2201.03545, 2301.00808).

    Arguments keep the names they have in mmpretrain's ConvNeXt, so an existing
    mmdet or mmseg config changes only ``type``. Parameters keep the authors'
    names, so their checkpoints load as they are.

    Args:
        arch: a name (tiny, small, base, large, xlarge and the others of
            ``archs.ARCHS``), or a dict
            with ``depths`` and ``channels``, four positive integers each.
        in_channels: channels of the input image.
        drop_path_rate: drop path rate of the last block; it grows linearly
            from 0 at the first. In [0, 1).
        layer_scale_init_value: initial layer scale; 0 leaves it out. The
            paper trains classifiers from 1e-6 and fine-tunes dense
            predictors from 1.0. If left out: 1e-6, or 0 with ``use_grn``.
        out_indices: the stages whose maps are returned, 0 to 3; negative
            numbers count from the last. Stages after the last one named are
            not built.
        frozen_stages: how many stages are frozen, counted from the input: 1
            freezes the stem and stage 0, 4 all stages, 0 or less nothing.
            The norms of the output maps stay trainable.
        use_grn: global response normalization in every block: ConvNeXt V2.
        gap_before_final_norm: accepted only as False: dense prediction has
            no pooling. Existing configs carry it.
        with_cp: gradient checkpointing of every block. (On a GPU the kernels keep no
            more anyway.)
        cuda_graphs: on a GPU, replay whole stages, forwards and back, as CUDA graphs
            for the few shapes that come most: the fastest way to train on crops of one
            size. It takes memory for each of these shapes, a quarter of the device's
            at most; other shapes take the ordinary way.
        init_cfg: as everywhere in mmengine. ``dict(type='Pretrained',
            checkpoint=SOURCE)`` loads weights of any library, from a file, a URL,
            ``timm://NAME`` or ``hf://OWNER/NAME``; where the backbone is in a
            larger model is found, and ``prefix`` picks one of several. Without
            it, weights are initialised as in the paper: truncated normal, 0.02.

    Raises:
        InputError: (a ValueError) an argument out of its range, or, from
            ``forward``, an image smaller than 32 pixels.

    Shapes: (N, in_channels, H, W), H and W at least 32, to a tuple of
    (N, channels, H // stride, W // stride), finest first; with odd sizes each
    halving rounds down. The maps are in the channels_last memory format.
    ``feature_info`` has their channels and strides.
    """

    def __init__(
        self,
        arch: str | Mapping = "tiny",
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float | None = None,
        out_indices: Sequence[int] | int = (0, 1, 2, 3),
        frozen_stages: int = 0,
        use_grn: bool = False,
        gap_before_final_norm: bool = False,
        with_cp: bool = False,
        cuda_graphs: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        self.depths, self.channels, eps = resolve_arch(arch)
        self.out_indices = resolve_out_indices(out_indices)
        if frozen_stages > NUM_STAGES:
            raise InputError(
                f"frozen_stages={frozen_stages} of ConvNeXt: there are {NUM_STAGES} "
                f"stages, give at most {NUM_STAGES}"
            )
        if gap_before_final_norm:
            raise InputError(
                "gap_before_final_norm=True of ConvNeXt is for classification; "
                "leave it out or set it to False"
            )
        if isinstance(init_cfg, list) and any(map(_is_pretrained, init_cfg)):
            raise InputError(
                "init_cfg of ConvNeXt: give Pretrained alone, not in a list; what a "
                "checkpoint lacks is initialised as in the paper"
            )
        self.frozen_stages = frozen_stages
        self.cuda_graphs = cuda_graphs
        if layer_scale_init_value is None:
            layer_scale_init_value = 0.0 if use_grn else 1e-6

        # Stages after the last output would never see a gradient: DDP stops on such.
        depths = self.depths[: max(self.out_indices) + 1]
        c = self.channels[: len(depths)]
        stem = nn.Sequential(
            PatchConv2d(in_channels, c[0], 4),
            LayerNorm2d(c[0], eps=eps),
        )
        self.downsample_layers = nn.ModuleList([stem])
        for before, after in pairwise(c):
            self.downsample_layers.append(
                nn.Sequential(
                    LayerNorm2d(before, eps=eps),
                    PatchConv2d(before, after, 2),
                )
            )

        rates = drop_path_rates(drop_path_rate, self.depths)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    Block(
                        width,
                        next(rates),
                        layer_scale_init_value,
                        use_grn,
                        with_cp,
                        norm_eps=eps,
                    )
                    for _ in range(depth)
                )
            )
            for depth, width in zip(depths, c, strict=True)
        )
        for i in self.out_indices:
            self.add_module(f"norm{i}", LayerNorm2d(c[i], eps=eps))

        self.feature_info = [FeatureInfo(c[i], 4 * 2**i) for i in self.out_indices]
        self.apply(_init_parameters)
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        check_size(x, "ConvNeXt")
        x = x.contiguous(memory_format=torch.channels_last)
        if Block.lean:
            fused.prepare(self, self._stage_modules, x)
        maps = []
        for i in range(len(self.stages)):
            x, normed = self._run_stage(i, x)
            if normed is not None:
                maps.append(normed)
        return tuple(maps)

    def _run_stage(self, i: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Stage ``i``: its output, and the normed map if that is an output map."""
        downsample, stage, norm = self._modules_of(i)
        graphed = self if self.cuda_graphs else None
        if Block.lean:
            by_kernels = fused.run_stage(downsample, stage, norm, x, graphed)
            if by_kernels is not None:
                return by_kernels
        x = downsample(x)
        if Block.lean:  # where the entrance alone has to be called
            by_kernels = fused.run_stage(None, stage, norm, x, graphed)
            if by_kernels is not None:
                return by_kernels
        x = stage(x)
        return x, None if norm is None else norm(x)

    def _modules_of(self, i: int) -> tuple[nn.Module, nn.Module, nn.Module | None]:
        """Entrance, blocks and output norm of stage ``i``."""
        norm = getattr(self, f"norm{i}") if i in self.out_indices else None
        return self.downsample_layers[i], self.stages[i], norm

    def _stage_modules(self) -> list[tuple]:
        return [self._modules_of(i) for i in range(len(self.stages))]

    def train(self, mode: bool = True) -> "ConvNeXt":
        super().train(mode)
        self._freeze()
        return self

    def init_weights(self) -> None:
        """Load what ``init_cfg`` names, reporting what was used and what was not.

        Raises:
            InputError: the checkpoint cannot be had, or none of it fits.
        """
        if _is_pretrained(self.init_cfg):
            # checkpoints/ registers it, so that models/ need not import checkpoints/.
            WEIGHT_INITIALIZERS.build({**self.init_cfg, "type": "ConvNeXtPretrained"})(
                self
            )
            self._is_init = True
            if hasattr(self, "_params_init_info"):  # mmengine's report in the log
                update_init_info(self, f"from {self.init_cfg['checkpoint']}")
        else:
            super().init_weights()

    def optimize_for_inference(self) -> "ConvNeXt":
        """Make a trained backbone a little faster; call it when weights are loaded.

        Layer scale is folded into the weights (its parameters, ``gamma``, are gone
        then), and they are laid out as they are read; on a GPU, CUDA graphs replay the
        shapes that come most (see ``cuda_graphs``). The maps stay the same but for
        rounding.

        Returns:
            the backbone itself, in evaluation mode and frozen.
        """
        for stage in self.stages:
            for block in stage:
                block.fold_layer_scale()
        self.cuda_graphs = True
        return self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def _freeze(self) -> None:
        frozen = max(self.frozen_stages, 0)
        for part in (*self.downsample_layers[:frozen], *self.stages[:frozen]):
            part.eval()
            part.requires_grad_(False)


def drop_path_rates(last: float, depths: Sequence[int]) -> Iterator[float]:
    """The rate of each block: from 0 at the first, linearly, to ``last``."""
    if not 0 <= last < 1:
        raise InputError(
            f"drop_path_rate={last} is a probability: give a number from 0 up to, but "
            "not including, 1"
        )
    blocks = sum(depths)
    return (last * block / max(blocks - 1, 1) for block in range(blocks))


def check_size(image: Tensor, backbone: str) -> None:
    """Raise an InputError if a stage's map of ``image`` would have no pixel."""
    height, width = image.shape[-2:]
    if min(height, width) < MIN_SIZE:
        raise InputError(
            f"an image of {height} x {width} pixels (height x width) is too small for "
            f"{backbone}: both sides need at least {MIN_SIZE}; resize or pad it"
        )


def _is_pretrained(init_cfg) -> bool:
    return isinstance(init_cfg, Mapping) and init_cfg.get("type") == "Pretrained"


def resolve_out_indices(out_indices: Sequence[int] | int) -> tuple[int, ...]:
    """The stages named, as numbers from 0, each once and in order."""
    given = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    if not given or any(
        not isinstance(i, int) or not -NUM_STAGES <= i < NUM_STAGES for i in given
    ):
        raise InputError(
            f"out_indices={out_indices!r}: name at least one of the stages "
            f"0 to {NUM_STAGES - 1}"
        )
    return tuple(sorted({i % NUM_STAGES for i in given}))


def _init_parameters(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
