"""The ConvNeXt backbone: four stages, and a normalised feature map from each."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, update_init_info
from mmengine.registry import MODELS, WEIGHT_INITIALIZERS
from torch import Tensor, nn

from convnext_dense.errors import InputError

from . import fused, layer_scale
from .archs import NUM_STAGES, resolve_arch
from .block import Block
from .fused import PatchConv2d
from .image_checks import check_images
from .layer_norm import LayerNorm2d
from .output_stride import downsample_conv, strides_and_dilations
from .tracing import is_compiling, is_symbolic, is_transformed


class FeatureInfo(NamedTuple):
    """Describes one output map.

    Attributes:
        channels: C.
        stride: the input pixels per map pixel, along each side.
    """

    channels: int
    stride: int


@MODELS.register_module()
class ConvNeXt(BaseModule):
    """ConvNeXt and ConvNeXt V2 for dense prediction (arXiv 2201.03545, 2301.00808).

    Arguments have the names of mmpretrain's ConvNeXt, so an existing mmdet or mmseg
    config changes only ``type``. Parameters have the authors' names, so the authors'
    checkpoints load as they are.

    >>> import torch
    >>> import convnext_dense
    >>> backbone = convnext_dense.ConvNeXt("atto", out_indices=(1, 3))
    >>> maps = backbone(torch.rand(1, 3, 64, 96))
    >>> [tuple(feature_map.shape) for feature_map in maps]
    [(1, 80, 8, 12), (1, 320, 2, 3)]
    >>> backbone.feature_info[0].stride
    8

    Args:
        arch: a name of ``archs.ARCHS`` (tiny, small, base, large, xlarge, ...), or a
            dict with ``depths`` and ``channels``, four positive integers each.
        in_channels: channels of the input image.
        drop_path_rate: drop path rate of the last block, in [0, 1). The rate grows
            linearly from 0 at the first block.
        layer_scale_init_value: initial layer scale; 0 leaves layer scale out. The
            paper trains classifiers from 1e-6 and fine-tunes dense predictors from
            1.0. None means 1e-6, or 0 with ``use_grn``.
        out_indices: the stages whose maps are returned, 0 to 3; negative numbers
            count from the last stage. Stages after the last index are not built.
        frozen_stages: the number of frozen stages, counted from the input: 1 freezes
            the stem and stage 0, 4 freezes all stages, 0 or less freezes nothing. The
            norms of the output maps stay trainable.
        use_grn: global response normalization in every block: ConvNeXt V2.
        gap_before_final_norm: only False is accepted, because dense prediction has no
            pooling. Existing configs set it.
        with_cp: gradient checkpointing of every block. It changes nothing where a
            GPU's kernels run: they keep no more in any case.
        cuda_graphs: on a GPU, replay the forward and backward passes of whole stages
            as CUDA graphs for the few most frequent shapes. This is the fastest way to
            train on crops of one size. Each of these shapes takes memory, all together
            a quarter of the device's memory at most. Other shapes run without graphs.
        init_cfg: mmengine's initialisation config. ``dict(type='Pretrained',
            checkpoint=SOURCE)`` loads weights of any library from a file, a URL,
            ``timm://NAME`` or ``hf://OWNER/NAME``. The backbone is found inside a
            larger model; ``prefix`` chooses one of several. Without ``init_cfg``
            weights are initialised as in the paper: truncated normal with standard
            deviation 0.02.
        output_stride: the stride of the deepest map: 32, or 16 or 8 as DeepLab, PSPNet
            and other heads want. Stages beyond it keep the resolution: their downsample
            layer has stride 1, and their depthwise convolutions are dilated, by 2 in
            the first such stage and by 4 in the second, as in timm. The parameters keep
            their shapes, so the same checkpoints load. A GPU's kernels take the other
            stages.
        channels_last: the memory format of the returned maps. False gives contiguous
            maps, a copy each, for heads that call ``view`` on them, as mmdet's
            CenterNet and mmseg's DMNet do.
        lean: True computes the blocks by the way that takes the least time and memory,
            False as ``block.py`` writes them out. None follows ``Block.lean``, which is
            True unless it was changed. Both give the same maps and gradients; second
            derivatives need False. ``backbone.lean = False`` changes it later. It is
            not part of a checkpoint.

    Raises:
        InputError: (a ValueError) an argument is out of its range, or ``forward`` is
            given something else than images (see ``forward``).

    Shapes: (N, in_channels, H, W), H and W at least 32, to a tuple of
    (N, channels, H // stride, W // stride), finest first; with odd sizes each
    halving rounds down. ``feature_info`` has their channels and strides.

    Layout: the maps are in PyTorch's channels_last memory format, whatever that of the
    images is, and contiguous with ``channels_last=False``. ``print(backbone)`` says
    which.

    Attributes:
        optimized: whether ``optimize_for_inference()`` was called.
    """

    # Backbones that an earlier version pickled have none of these.
    optimized = False
    _lean: bool | None = None
    # Some random values of the stem, until the weights that init_cfg names are loaded.
    _random_stem: Tensor | None = None
    _training_is_noted = False  # whether a warning said so in training

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
        output_stride: int = 32,
        channels_last: bool = True,
        lean: bool | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        self.depths, self.channels, eps = resolve_arch(arch)
        self.out_indices = resolve_out_indices(out_indices)
        strides, dilations = strides_and_dilations(output_stride)
        if frozen_stages > NUM_STAGES:
            raise InputError(
                f"frozen_stages={frozen_stages} of ConvNeXt: there are {NUM_STAGES} "
                f"stages, give at most {NUM_STAGES}"
            )
        if gap_before_final_norm:
            raise InputError(
                "gap_before_final_norm=True of ConvNeXt: only classification uses it. "
                "Leave it out or set it to False"
            )
        if isinstance(init_cfg, list) and any(map(_is_pretrained, init_cfg)):
            raise InputError(
                "init_cfg of ConvNeXt: Pretrained is in a list. Give it alone, as "
                "dict(type='Pretrained', checkpoint=...); weights that the checkpoint "
                "lacks are initialised as in the paper"
            )
        self.frozen_stages = frozen_stages
        self.cuda_graphs = cuda_graphs
        self.channels_last = channels_last
        if layer_scale_init_value is None:
            layer_scale_init_value = 0.0 if use_grn else 1e-6

        # Stages after the last output map would get no gradient, and DDP raises an
        # error for parameters without one.
        depths = self.depths[: max(self.out_indices) + 1]
        c = self.channels[: len(depths)]
        stem = nn.Sequential(
            PatchConv2d(in_channels, c[0], 4),
            LayerNorm2d(c[0], eps=eps),
        )
        self.downsample_layers = nn.ModuleList([stem])
        for (before, after), dilation in zip(pairwise(c), dilations[1:], strict=False):
            self.downsample_layers.append(
                nn.Sequential(
                    LayerNorm2d(before, eps=eps),
                    downsample_conv(before, after, dilation),
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
                        dilation=dilation,
                    )
                    for _ in range(depth)
                )
            )
            for depth, width, dilation in zip(depths, c, dilations, strict=False)
        )
        for i in self.out_indices:
            self.add_module(f"norm{i}", LayerNorm2d(c[i], eps=eps))

        self.feature_info = [FeatureInfo(c[i], strides[i]) for i in self.out_indices]
        self.apply(_init_parameters)
        self._freeze()
        if _is_pretrained(init_cfg):
            self._random_stem = self._values_of_the_stem()
        self.lean = lean

    @property
    def lean(self) -> bool:
        """Whether the blocks are computed by the fastest way (see the arguments)."""
        return Block.lean if self._lean is None else self._lean

    @lean.setter
    def lean(self, lean: bool | None) -> None:
        if lean not in (None, True, False):
            raise InputError(f"lean={lean!r} of ConvNeXt: give True, False or None")
        self._lean = lean
        for block in self._blocks():
            if lean is None:
                block.__dict__.pop("lean", None)
            else:
                block.lean = lean

    def extra_repr(self) -> str:
        """What ``print`` says of the returned maps."""
        strides = ", ".join(str(info.stride) for info in self.feature_info)
        channels = ", ".join(str(info.channels) for info in self.feature_info)
        layout = "channels_last" if self.channels_last else "contiguous"
        return f"maps: strides {strides}; channels {channels}; layout {layout}"

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of images ``x``, (N, in_channels, H, W).

        Returns:
            a map (N, channels, H // stride, W // stride) for each of ``out_indices``,
            finest first, in the layout of ``channels_last``.

        Raises:
            InputError: (a ValueError) ``x`` is no tensor of four dimensions, has other
                channels or another number type than the weights (under autocast it may
                be any of fp32, bf16 and fp16), or a side is shorter than 32 pixels.
        """
        check_images(x, cast(Any, self.downsample_layers)[0][0], "ConvNeXt")
        if (self._random_stem is not None or self.optimized) and not is_compiling():
            self._warn()
        x = _in_channels_last(x)
        lean = self.lean and not is_symbolic(x)
        if lean:
            fused.prepare(self, self._stage_modules, x)
        maps = []
        for i in range(len(self.stages)):
            x, normed = self._run_stage(i, x, lean)
            if normed is not None:
                maps.append(normed if self.channels_last else normed.contiguous())
        return tuple(maps)

    def _run_stage(
        self, i: int, x: Tensor, lean: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Compute stage ``i``: its output, and the normed map if it is returned.

        A GPU's kernels may do so if it is ``lean``.
        """
        downsample, stage, norm = self._modules_of(i)
        graphed = self if self.cuda_graphs else None
        if lean:
            by_kernels = fused.run_stage(downsample, stage, norm, x, graphed)
            if by_kernels is not None:
                return by_kernels
        x = downsample(x)
        if lean:  # the kernels may take the blocks without the entrance
            by_kernels = fused.run_stage(None, stage, norm, x, graphed)
            if by_kernels is not None:
                return by_kernels
        x = stage(x)
        return x, None if norm is None else norm(x)

    def _modules_of(
        self, i: int
    ) -> tuple[nn.Sequential, nn.Sequential, nn.Module | None]:
        """The stem or downsample layer, the blocks and the output norm of a stage."""
        norm = getattr(self, f"norm{i}") if i in self.out_indices else None
        entrance, blocks = self.downsample_layers[i], self.stages[i]
        return cast(nn.Sequential, entrance), cast(nn.Sequential, blocks), norm

    def _stage_modules(self) -> list[tuple]:
        """The modules of every stage, for ``fused.prepare``."""
        return [self._modules_of(i) for i in range(len(self.stages))]

    def train(self, mode: bool = True) -> "ConvNeXt":
        """Set training mode, except for frozen stages: they stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def init_weights(self) -> None:
        """Load the weights that ``init_cfg`` names, and log which were used.

        Raises:
            InputError: the checkpoint cannot be read, or none of its weights fits.
        """
        if _is_pretrained(self.init_cfg):
            load = WEIGHT_INITIALIZERS.build(
                dict(
                    type="ConvNeXtPretrained",  # of checkpoints/, which imports models/
                    checkpoint=self.init_cfg["checkpoint"],
                    prefix=self.init_cfg.get("prefix"),
                )
            )
            load(self)
            self._is_init = True
            if hasattr(self, "_params_init_info"):  # mmengine's report in the log
                update_init_info(self, f"from {self.init_cfg['checkpoint']}")
        else:
            super().init_weights()

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike, prefix: str | None = None, **arguments: Any
    ) -> "ConvNeXt":
        """Build the backbone of a checkpoint, of any library, with its weights.

        The architecture is read from the checkpoint: ``arch``, ``in_channels``,
        ``use_grn`` and whether there is layer scale. All stages' maps are returned.

        >>> import torch
        >>> from convnext_dense import ConvNeXt
        >>> torch.save(ConvNeXt("atto").state_dict(), "atto.pth")
        >>> backbone = ConvNeXt.from_pretrained("atto.pth", out_indices=(1, 2, 3))
        >>> [info.channels for info in backbone.feature_info]
        [80, 160, 320]
        >>> backbone.training
        False

        Args:
            source: a file, a folder with weights, a URL, ``timm://NAME`` or
                ``hf://OWNER/NAME``.
            prefix: what the backbone's names begin with, for a checkpoint with
                several backbones.
            **arguments: of the constructor. They replace those read from the
                checkpoint.

        Returns:
            the backbone in evaluation mode, as timm's and transformers' functions of
            this kind return it; ``train()`` prepares it for training.

        Raises:
            InputError: the checkpoint cannot be read, has no ConvNeXt, or does not fit
                the arguments.
        """
        # Of checkpoints/, which imports models/.
        load = WEIGHT_INITIALIZERS.build(
            dict(type="ConvNeXtPretrained", checkpoint=os.fspath(source), prefix=prefix)
        )
        backbone = load.build(cls, arguments)
        backbone._is_init = True  # mmengine initialises no weights again
        return backbone.eval()

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Load a state dict whose layer scale may or may not be folded.

        PyTorch and mmengine call this for each module, before its submodules.
        """
        if any(name.startswith(f"{prefix}stages.") for name in state_dict):
            self._random_stem = None
        blocks = {
            f"{prefix}{name}.": block
            for name, block in self.named_modules()
            if isinstance(block, Block)
        }
        if self.optimized:
            layer_scale.fold(state_dict, list(blocks))
        elif blocks and all(block.gamma is not None for block in blocks.values()):
            layer_scale.add_ones(state_dict, list(blocks))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _values_of_the_stem(self) -> Tensor | None:
        """Eight weights of the stem, on the CPU; None if they have no values now.

        That is so on the meta device, of a subclass of ``Tensor``, under ``vmap``, and
        of a stem that computes its weights.
        """
        # Not stem.weight, which torch.fx would trace.
        weight = cast(Any, self.downsample_layers)[0][0]._parameters.get("weight")
        is_plain = type(weight) in (Tensor, nn.Parameter) and not weight.is_meta
        if not is_plain or is_transformed():
            return None
        return weight.detach().flatten()[:8].cpu().clone()

    def _warn(self) -> None:
        """Warn once of random weights, and once of training what is for inference."""
        before, now = self._random_stem, self._values_of_the_stem()
        if before is not None and now is not None:
            self._random_stem = None
            # Weights that were copied in, as into an average of models, are loaded too.
            is_random = torch.equal(now, before.to(now.dtype))
            if is_random and self.init_cfg and not self.is_init:
                print_log(
                    "the weights of ConvNeXt are random: its init_cfg names "
                    f"{self.init_cfg['checkpoint']}, which was not loaded. Call "
                    "backbone.init_weights() before the first forward pass. For random "
                    "weights, build it without init_cfg",
                    "current",
                    logging.WARNING,
                )
        if (
            self.optimized
            and self.training
            and torch.is_grad_enabled()
            and not self._training_is_noted
        ):
            self._training_is_noted = True
            print_log(
                "this ConvNeXt is in training mode after optimize_for_inference(), "
                "which froze its weights and removed layer scale. To train it, build "
                "another one and load the checkpoint from before; to use it as it is, "
                "call eval()",
                "current",
                logging.WARNING,
            )

    def _blocks(self) -> Iterator[Block]:
        """The blocks of all stages."""
        return (m for m in self.stages.modules() if isinstance(m, Block))

    def optimize_for_inference(self) -> "ConvNeXt":
        """Make a trained backbone a little faster. Call it after loading the weights.

        Layer scale is folded into the weights; its parameters, ``gamma``, are removed.
        Weights are stored in the channels_last memory format. On a GPU, CUDA graphs
        replay the most frequent shapes (see ``cuda_graphs``). The maps stay the same
        except for rounding.

        The backbone can be saved and loaded: its state dict loads into a backbone with
        layer scale too, with ones for ``gamma``, and the state dict of one with layer
        scale loads into it. It cannot be trained again; in training mode its first
        forward pass warns.

        Returns:
            the backbone itself, in evaluation mode and frozen.
        """
        for block in self._blocks():
            block.fold_layer_scale()
        self.optimized = self.cuda_graphs = True
        return self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def _freeze(self) -> None:
        """Freeze the first ``frozen_stages`` stages, in evaluation mode."""
        count = max(self.frozen_stages, 0)
        for module in (*self.downsample_layers[:count], *self.stages[:count]):
            module.eval()
            module.requires_grad_(False)


def drop_path_rates(last: float, depths: Sequence[int]) -> Iterator[float]:
    """The drop path rate of each block: linear, from 0 at the first to ``last``.

    >>> from convnext_dense.models.convnext import drop_path_rates
    >>> [round(rate, 2) for rate in drop_path_rates(0.4, depths=(1, 1, 2, 1))]
    [0.0, 0.1, 0.2, 0.3, 0.4]

    Args:
        last: the rate of the last block, in [0, 1).
        depths: the blocks of each stage.

    Raises:
        InputError: (a ValueError) ``last`` is out of its range.
    """
    if not 0 <= last < 1:
        raise InputError(
            f"drop_path_rate={last} is a probability: give a number from 0 up to, but "
            "not including, 1"
        )
    blocks = sum(depths)
    return (last * block / max(blocks - 1, 1) for block in range(blocks))


def _in_channels_last(x: Tensor) -> Tensor:
    """Images (N, C, H, W) in the channels_last memory format."""
    if is_transformed():  # vmap knows no memory format but the contiguous one
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def _is_pretrained(init_cfg: object) -> bool:
    """Whether an ``init_cfg`` names a checkpoint."""
    return isinstance(init_cfg, Mapping) and init_cfg.get("type") == "Pretrained"


def resolve_out_indices(out_indices: Sequence[int] | int) -> tuple[int, ...]:
    """The indices of the output stages, from 0 to 3, each once and in order.

    Raises:
        InputError: (a ValueError) there is no index, or one is out of range.
    """
    indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    if not indices or any(
        not isinstance(i, int) or not -NUM_STAGES <= i < NUM_STAGES for i in indices
    ):
        raise InputError(
            f"out_indices={out_indices!r}: name at least one of the stages "
            f"0 to {NUM_STAGES - 1}"
        )
    return tuple(sorted({i % NUM_STAGES for i in indices}))


def _init_parameters(module: nn.Module) -> None:
    """Initialise a layer as the paper does (arXiv 2201.03545, appendix A.1)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
