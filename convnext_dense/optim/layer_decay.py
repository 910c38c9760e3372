"""Layer-wise, stage-wise and block-wise learning-rate decay.

A parameter's name determines its layer, and the layer its learning-rate scale. The
first layer has the lowest scale. The last layer has scale 1; it is everything after the
backbone's stages. ``layer_of`` computes the layer. The optim-wrapper constructor
applies the scales in addition to mmengine's own per-parameter rules.

Layer-wise and stage-wise decay are the authors', of their detection and segmentation
code (github.com/facebookresearch/ConvNeXt, layer_decay_optimizer_constructor.py).
Block-wise decay is that of the ImageNet-S baselines
(github.com/LUSSeg/ImageNetSegModel, models_convnext.py).
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from convnext_dense.errors import InputError

from . import custom_keys

FEW = 4  # innermost modules that a row of the table names
DECAY_TYPES = ("layer_wise", "stage_wise", "block_wise")

_LAYER_DECAY_KEYS = {"decay_rate", "decay_type", "num_layers"}
_MMENGINE_KEYS = {
    "bias_decay_mult",
    "bias_lr_mult",
    "bypass_duplicate",
    "custom_keys",
    "dcn_offset_lr_mult",
    "dwconv_decay_mult",
    "flat_decay_mult",
    "norm_decay_mult",
}
BACKBONE_PARAMETER = re.compile(r"backbone\.(stages|downsample_layers)\.(\d+)\.(\d+)\.")


class Layer(NamedTuple):
    """The parameters of a layer that have one learning rate.

    Attributes:
        number: 0 for the stem, the highest for the head.
        lr_scale: the factor of the base learning rate, ``lr_mult`` included.
        parameters: the number of parameters, elements counted.
        parts: the model's modules in the layer, as in ``stages.2.3-5``. Where a layer
            has several learning rates, its innermost modules, if they are few, as in
            ``sampling_offsets``.
    """

    number: int
    lr_scale: float
    parameters: int
    parts: tuple[str, ...]


def default_num_layers(depths: tuple[int, ...], decay_type: str) -> int:
    """The layer of the backbone's last block. The head's layer is one higher.

    Layer-wise and stage-wise decay follow the authors: 12 if the third stage has more
    than nine blocks, otherwise 6. Block-wise decay counts every block and every
    downsample layer.

    Args:
        depths: the blocks of each stage.
        decay_type: one of ``DECAY_TYPES``.
    """
    if decay_type == "block_wise":
        return sum(depths) + len(depths) - 1
    return 12 if depths[2] > 9 else 6


def layer_of(
    name: str, num_layers: int, decay_type: str, depths: tuple[int, ...] = ()
) -> int:
    """The layer of a parameter: 0 for the stem, ``num_layers + 1`` for the head.

    >>> import convnext_dense
    >>> from convnext_dense.optim.layer_decay import layer_of
    >>> layer_of("backbone.stages.2.4.gamma", 6, "layer_wise")
    4
    >>> layer_of("backbone.stages.2.4.gamma", 6, "stage_wise")
    3
    >>> layer_of("neck.lateral_convs.0.conv.weight", 6, "layer_wise")
    7

    Args:
        name: the parameter's name in ``named_parameters()`` of a detector or segmentor
            whose ConvNeXt is ``backbone``.
        num_layers: the layer of the last stage in layer-wise decay.
        decay_type: how the backbone is divided into layers. ``'layer_wise'``: stages 0
            and 1 are a layer each, every three blocks of stage 2 are one, stage 3 is
            the last. ``'stage_wise'``: each stage is a layer, all downsample layers are
            layer 0. ``'block_wise'``: each downsample layer and each block is a layer.
        depths: the blocks of each stage; only block-wise decay needs them.
    """
    match = BACKBONE_PARAMETER.match(name)
    if not match:
        return num_layers + 1
    in_stage = match[1] == "stages"
    stage, block = int(match[2]), int(match[3])
    if decay_type == "block_wise":
        downsample = sum(depths[:stage]) + stage
        return downsample + 1 + block if in_stage else downsample
    if decay_type == "stage_wise":
        return stage + 1 if in_stage else 0
    if not in_stage:
        return (0, 2, 3, num_layers)[stage]
    return (1, 2, min(3 + block // 3, num_layers), num_layers)[stage]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's optim-wrapper constructor, with layer decay.

    A config names it as ``constructor`` of ``optim_wrapper``. Its ``paramwise_cfg``
    takes the options of mmengine's own constructor (``custom_keys``,
    ``norm_decay_mult``, ``bypass_duplicate``, ...) and these:

    - ``decay_rate``: the learning rate's factor from one layer to the one before it,
      above 0 and at most 1.
    - ``decay_type``: ``'layer_wise'`` (the default), ``'stage_wise'`` or
      ``'block_wise'``.
    - ``num_layers``: at least 4; left out, the authors' rule computes it from the
      backbone's depths. Block-wise decay does not take it: it counts the blocks.

    As in the authors' code, one-dimensional parameters (norms, biases, layer scale)
    have no weight decay unless mmengine's options set one. Frozen parameters are left
    out. Each parameter group has the keys ``layer``, ``lr_scale`` and ``param_names``.

    ``custom_keys`` are as in mmengine (``optim/custom_keys.py``), with two differences:
    a key without ``decay_mult`` does not change the weight decay, and a key that no
    parameter's name contains is an error. A group's learning rate is the base rate
    times the layer's scale times ``lr_mult``; ``lr_scale`` is the product of the two
    factors. So a DETR with its backbone and its sampling offsets at a tenth of the rate
    takes layer decay in addition::

        custom_keys = {
            "backbone": dict(lr_mult=0.1),
            "sampling_offsets": dict(lr_mult=0.1),
            "level_embed": dict(decay_mult=0.0),
        }

    >>> import torch
    >>> import convnext_dense
    >>> from mmengine.optim import build_optim_wrapper
    >>> model = torch.nn.Module()
    >>> model.backbone = convnext_dense.ConvNeXt("atto")
    >>> cfg = dict(
    ...     constructor="LayerDecayOptimWrapperConstructor",
    ...     optimizer=dict(type="AdamW", lr=1e-4),
    ...     paramwise_cfg=dict(decay_rate=0.5, decay_type="stage_wise"),
    ... )
    >>> groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    >>> sorted({(group["layer"], group["lr_scale"]) for group in groups})[-2:]
    [(4, 0.125), (7, 1.0)]

    Raises:
        InputError: (a ValueError) an option is unknown or out of its range, a custom
            key applies to nothing, or the model's ``backbone`` has no ConvNeXt
            parameters.
    """

    paramwise_cfg: dict

    def _validate_cfg(self) -> None:
        """Check ``paramwise_cfg``; mmengine's constructor calls this first."""
        super()._validate_cfg()
        options = self.paramwise_cfg
        unknown = sorted(set(options) - _LAYER_DECAY_KEYS - _MMENGINE_KEYS)
        if unknown:
            raise _wrong(
                f"unknown {', '.join(unknown)}; use some of "
                f"{', '.join(sorted(_LAYER_DECAY_KEYS | _MMENGINE_KEYS))}"
            )
        rate = options.get("decay_rate")
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise _wrong(f"decay_rate is {rate!r}; give a number above 0, at most 1")
        if options.get("decay_type", DECAY_TYPES[0]) not in DECAY_TYPES:
            raise _wrong(
                f"decay_type is {options['decay_type']!r}; "
                f"use one of {', '.join(DECAY_TYPES)}"
            )
        layers = options.get("num_layers")
        if layers is not None and (not isinstance(layers, int) or layers < 4):
            raise _wrong(f"num_layers is {layers!r}; give at least 4, or leave it out")
        for key, setting in (options.get("custom_keys") or {}).items():
            for name in ("lr_mult", "decay_mult"):
                factor = setting.get(name, 1)
                if not isinstance(factor, int | float) or factor < 0:
                    raise _wrong(
                        f"custom_keys: {name} of {key} is {factor!r}; give a number, "
                        "at least 0"
                    )
        if layers is not None and options.get("decay_type") == "block_wise":
            raise _wrong("block_wise counts the backbone's blocks; drop num_layers")
        if self.base_lr is None:
            raise InputError(
                "optim_wrapper.optimizer has no lr, which layer decay needs: add lr=..."
            )
        if self.base_wd is not None:
            no_decay = ("norm_decay_mult", "bias_decay_mult", "flat_decay_mult")
            self.paramwise_cfg = {**dict.fromkeys(no_decay, 0.0), **options}

    def add_params(self, params: list[dict], module: nn.Module, prefix="", **kwargs):
        """Add one parameter group for each layer and each set of options.

        mmengine makes one group for each parameter; these are scaled and merged.

        Args:
            params: the list to which the groups are added.
            module: the model.
            prefix: the submodule's name, when mmengine's method calls itself.
        """
        if prefix:
            return super().add_params(params, module, prefix=prefix, **kwargs)
        singles: list[dict] = []
        options = self.paramwise_cfg
        # mmengine would give parameters with a custom key none of its other rules.
        self.paramwise_cfg = {k: v for k, v in options.items() if k != "custom_keys"}
        try:
            with _quiet():
                super().add_params(singles, module)
        finally:
            self.paramwise_cfg = options
        self._apply_custom_keys(singles, module)
        params.extend(self._by_layer(singles, module))
        _log_table(params, module, self.paramwise_cfg, self.base_lr)

    def _apply_custom_keys(self, singles: list[dict], model: nn.Module) -> None:
        """Change the groups of single parameters as ``custom_keys`` says."""
        settings = self.paramwise_cfg.get("custom_keys") or {}
        names = {id(param): name for name, param in model.named_parameters()}
        unknown = custom_keys.unknown_keys(settings, names.values())
        if unknown:
            raise _wrong(
                "custom_keys: no parameter's name contains "
                f"{' or '.join(unknown)}; correct the key, or remove it"
            )
        for single in singles:
            key = custom_keys.key_of(names[id(single["params"][0])], settings)
            if key is not None:
                single |= custom_keys.factors(settings[key], self.base_lr, self.base_wd)

    def _by_layer(self, singles: list[dict], model: nn.Module) -> list[dict]:
        """Scale the groups of single parameters and merge those of equal options.

        Returns:
            the groups in the order of their layers.
        """
        decay_type = self.paramwise_cfg.get("decay_type", DECAY_TYPES[0])
        names = {id(param): name for name, param in model.named_parameters()}
        if not any(map(BACKBONE_PARAMETER.match, names.values())):
            raise InputError(
                "layer decay needs a model whose `backbone` is a ConvNeXt; for another "
                "backbone remove optim_wrapper.constructor and paramwise_cfg"
            )
        # Another library's ConvNeXt may have the names but no ``depths``.
        depths = getattr(model.backbone, "depths", None)
        num_layers = self.paramwise_cfg.get("num_layers")
        if num_layers is None:
            if depths is None:
                raise _wrong(
                    "this backbone has no attribute depths; give num_layers, and "
                    "layer_wise or stage_wise as decay_type"
                )
            num_layers = default_num_layers(depths, decay_type)
        seen: set[int] = set()
        groups: dict[tuple, dict] = {}
        for single in singles:
            (param,) = single.pop("params")
            name = names[id(param)]
            if id(param) in seen:
                raise _wrong(
                    f"{name} is shared by two modules of the model; "
                    "set bypass_duplicate=True to train it once"
                )
            seen.add(id(param))
            layer = layer_of(name, num_layers, decay_type, depths or ())
            key = (layer, repr(sorted(single.items())))
            if key not in groups:
                scale = self.paramwise_cfg["decay_rate"] ** (num_layers + 1 - layer)
                if "lr" in single and self.base_lr:
                    scale *= single["lr"] / self.base_lr
                single["lr"] = self.base_lr * scale
                groups[key] = dict(
                    **single, layer=layer, lr_scale=scale, params=[], param_names=[]
                )
            groups[key]["params"].append(param)
            groups[key]["param_names"].append(name)
        return sorted(groups.values(), key=lambda group: group["layer"])


def _wrong(problem: str) -> InputError:
    """The error for a wrong option."""
    return InputError(f"optim_wrapper.paramwise_cfg for layer decay: {problem}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out mmengine's log line for each parameter; the table replaces them."""

    def is_kept(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (
            message.startswith("paramwise_options -- ")
            or "is skipped since its requires_grad" in message
        )

    logger = MMLogger.get_current_instance()
    logger.addFilter(is_kept)
    try:
        yield
    finally:
        logger.removeFilter(is_kept)


def layers_of(groups: list[dict]) -> list[Layer]:
    """The layers of an optimizer's ``param_groups``, from the stem to the head.

    A layer whose parameters have several learning rates, by ``custom_keys``, is several
    entries, the lowest rate first.

    Args:
        groups: as ``LayerDecayOptimWrapperConstructor`` makes them.
    """
    rows: dict[tuple[int, float], list[dict]] = {}
    for group in groups:
        rows.setdefault((group["layer"], group["lr_scale"]), []).append(group)
    rates = Counter(index for index, _ in rows)
    layers = []
    for (index, scale), row in sorted(rows.items()):
        names = [name for group in row for name in group["param_names"]]
        parts = _parts(names)
        if rates[index] > 1 and not any(map(BACKBONE_PARAMETER.match, names)):
            innermost = {name.split(".")[-2] for name in names if "." in name}
            if len(innermost) <= FEW:
                parts = tuple(sorted(innermost))
        count = sum(param.numel() for group in row for param in group["params"])
        layers.append(Layer(index, scale, count, parts))
    return layers


def _log_table(
    groups: list[dict], model: nn.Module, options: Mapping, base_lr: float
) -> None:
    """Log the layers with their scales, and the number of frozen parameters."""
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    lines = [
        f"{options.get('decay_type', DECAY_TYPES[0])} learning-rate decay "
        f"{options['decay_rate']}, base lr {base_lr:g}, frozen parameters {frozen:,}",
        "layer   lr scale     parameters  of",
    ]
    for index, scale, count, parts in layers_of(groups):
        lines.append(f"{index:5d}   {scale:8.6f}  {count:13,}  {', '.join(parts)}")
    MMLogger.get_current_instance().info("\n".join(lines))


def _parts(names: Iterable[str]) -> tuple[str, ...]:
    """The modules that the parameters ``names`` belong to, as in ``stages.2.3-5``."""
    parts: set[str] = set()
    blocks: dict[str, set[int]] = {}
    for name in names:
        match = BACKBONE_PARAMETER.match(name)
        if match and match[1] == "stages":
            blocks.setdefault(f"stages.{match[2]}", set()).add(int(match[3]))
        elif match:
            parts.add(f"downsample_layers.{match[2]}")
        else:
            parts.add(name.removeprefix("backbone.").split(".")[0])
    for stage, indices in blocks.items():
        first, last = min(indices), max(indices)
        parts.add(f"{stage}.{first}" + (f"-{last}" if last > first else ""))
    return tuple(sorted(parts))
