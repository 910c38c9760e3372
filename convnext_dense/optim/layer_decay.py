"""Layer-wise, stage-wise and block-wise learning-rate decay.

A parameter's name gives its layer, the layer its learning-rate scale: the first
layer learns slowest, the last layer, which is everything behind the backbone's
stages, at the full rate. ``layer_of`` is that rule, a pure function; the
optim-wrapper constructor applies it on top of mmengine's own per-parameter
rules. Layer-wise and stage-wise are the authors', of their detection and
segmentation code (github.com/facebookresearch/ConvNeXt,
layer_decay_optimizer_constructor.py); block-wise is that of the ImageNet-S
baselines (github.com/LUSSeg/ImageNetSegModel, models_convnext.py).
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from convnext_dense.errors import InputError

DECAY_TYPES = ("layer_wise", "stage_wise", "block_wise")

_OWN_KEYS = {"decay_rate", "decay_type", "num_layers"}
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
BACKBONE_PART = re.compile(r"backbone\.(stages|downsample_layers)\.(\d+)\.(\d+)\.")


class Layer(NamedTuple):
    """One row of the table: its scale, how many parameters, of which parts."""

    index: int
    lr_scale: float
    parameters: int
    parts: tuple[str, ...]


def default_num_layers(depths: tuple[int, ...], decay_type: str) -> int:
    """The layer of the backbone's last block; the head is one further.

    In layer-wise and stage-wise decay 6 for tiny and 12 for deeper ones, the
    authors' rule; in block-wise decay every block and downsample layer counts.
    """
    if decay_type == "block_wise":
        return sum(depths) + len(depths) - 1
    return 12 if depths[2] > 9 else 6


def layer_of(
    name: str, num_layers: int, decay_type: str, depths: tuple[int, ...] = ()
) -> int:
    """The layer of a parameter: 0 for the stem, ``num_layers + 1`` for the head.

    Args:
        name: as in ``named_parameters()`` of a detector or segmentor, whose
            ConvNeXt is ``backbone``.
        num_layers: the layer of the last stage in layer-wise decay.
        decay_type: ``'layer_wise'`` gives each of the first two stages a layer,
            every three blocks of the third one, and the fourth the last;
            ``'stage_wise'`` gives each stage one, and all downsample layers 0;
            ``'block_wise'`` gives each downsample layer and each block one.
        depths: blocks of each stage; only block-wise decay needs them.
    """
    match = BACKBONE_PART.match(name)
    if not match:
        return num_layers + 1
    part, stage, block = match[1], int(match[2]), int(match[3])
    if decay_type == "block_wise":
        downsample = sum(depths[:stage]) + stage
        return downsample if part == "downsample_layers" else downsample + 1 + block
    if decay_type == "stage_wise":
        return stage + 1 if part == "stages" else 0
    if part == "downsample_layers":
        return (0, 2, 3, num_layers)[stage]
    return (1, 2, min(3 + block // 3, num_layers), num_layers)[stage]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor with layer decay; ``constructor=`` of ``optim_wrapper``.

    ``paramwise_cfg`` takes, besides everything mmengine's own constructor does
    (``custom_keys``, ``norm_decay_mult``, ``bypass_duplicate``, ...):

    - ``decay_rate``: learning-rate factor from one layer to the one before it.
    - ``decay_type``: ``'layer_wise'`` (the default), ``'stage_wise'`` or
      ``'block_wise'``.
    - ``num_layers``: by the authors' rule from the backbone if left out;
      block-wise decay always counts the backbone's blocks.

    As in the authors' code, one-dimensional parameters (norms, biases, layer
    scale) have no weight decay unless mmengine's options say otherwise. Frozen
    parameters are left out. Each group carries ``layer`` and ``lr_scale``.

    Raises:
        InputError: an option unknown or out of range, or a model whose
            ``backbone`` has no ConvNeXt parameters.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        given = self.paramwise_cfg
        unknown = sorted(set(given) - _OWN_KEYS - _MMENGINE_KEYS)
        if unknown:
            raise _wrong(
                f"unknown {', '.join(unknown)}; there are "
                f"{', '.join(sorted(_OWN_KEYS | _MMENGINE_KEYS))}"
            )
        rate = given.get("decay_rate")
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise _wrong(f"decay_rate is {rate!r}; give a number above 0, at most 1")
        if given.get("decay_type", DECAY_TYPES[0]) not in DECAY_TYPES:
            raise _wrong(
                f"decay_type is {given['decay_type']!r}; "
                f"there are {', '.join(DECAY_TYPES)}"
            )
        layers = given.get("num_layers")
        if layers is not None and (not isinstance(layers, int) or layers < 4):
            raise _wrong(f"num_layers is {layers!r}; give at least 4, or leave it out")
        if layers is not None and given.get("decay_type") == "block_wise":
            raise _wrong("block_wise counts the backbone's blocks; drop num_layers")
        if self.base_lr is None:
            raise InputError("optim_wrapper.optimizer needs an lr for layer decay")
        if self.base_wd is not None:
            no_decay = ("norm_decay_mult", "bias_decay_mult", "flat_decay_mult")
            self.paramwise_cfg = {**dict.fromkeys(no_decay, 0.0), **given}

    def add_params(self, params: list[dict], module: nn.Module, prefix="", **kwargs):
        """mmengine's groups, one a parameter, scaled by layer and merged."""
        if prefix:  # a submodule: mmengine's method calls itself for each
            return super().add_params(params, module, prefix=prefix, **kwargs)
        singles: list[dict] = []
        with _quiet():
            super().add_params(singles, module)
        params.extend(self._by_layer(singles, module))
        _log_table(params, module, self.paramwise_cfg, self.base_lr)

    def _by_layer(self, singles: list[dict], model: nn.Module) -> list[dict]:
        decay_type = self.paramwise_cfg.get("decay_type", DECAY_TYPES[0])
        names = {id(param): name for name, param in model.named_parameters()}
        if not any(map(BACKBONE_PART.match, names.values())):
            raise InputError(
                "layer decay needs a model whose `backbone` is a ConvNeXt; for another "
                "backbone drop optim_wrapper.constructor and paramwise_cfg"
            )
        depths = getattr(model.backbone, "depths", None)  # another library's ConvNeXt
        num_layers = self.paramwise_cfg.get("num_layers")
        if num_layers is None:
            if depths is None:
                raise _wrong(
                    "this backbone does not tell its depths; give num_layers, and "
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
                    f"{name} is shared between two parts of the model; "
                    "set bypass_duplicate=True to train it once"
                )
            seen.add(id(param))
            layer = layer_of(name, num_layers, decay_type, depths)
            key = (layer, repr(sorted(single.items())))
            if key not in groups:
                scale = self.paramwise_cfg["decay_rate"] ** (num_layers + 1 - layer)
                single["lr"] = single.get("lr", self.base_lr) * scale
                groups[key] = dict(
                    **single, layer=layer, lr_scale=scale, params=[], param_names=[]
                )
            groups[key]["params"].append(param)
            groups[key]["param_names"].append(name)
        return sorted(groups.values(), key=lambda group: group["layer"])


def _wrong(what: str) -> InputError:
    return InputError(f"optim_wrapper.paramwise_cfg for layer decay: {what}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back mmengine's line for every parameter; the table says it shorter."""

    def wanted(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (
            message.startswith("paramwise_options -- ")
            or "is skipped since its requires_grad" in message
        )

    logger = MMLogger.get_current_instance()
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


def layers_of(groups: list[dict]) -> list[Layer]:
    """The layers of an optimizer's ``param_groups``, from the stem to the head."""
    rows: dict[int, list[dict]] = {}
    for group in groups:
        rows.setdefault(group["layer"], []).append(group)
    return [
        Layer(
            index,
            row[0]["lr_scale"],
            sum(param.numel() for group in row for param in group["params"]),
            _parts(name for group in row for name in group["param_names"]),
        )
        for index, row in sorted(rows.items())
    ]


def _log_table(groups: list[dict], model, options: Mapping, base_lr: float) -> None:
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
    """The parts of the model that ``names`` belong to, as in ``stages.2.3-5``."""
    parts, blocks = set(), {}
    for name in names:
        match = BACKBONE_PART.match(name)
        if match and match[1] == "stages":
            blocks.setdefault(f"stages.{match[2]}", set()).add(int(match[3]))
        elif match:
            parts.add(f"downsample_layers.{match[2]}")
        else:
            parts.add(name.removeprefix("backbone.").split(".")[0])
    for stage, found in blocks.items():
        first, last = min(found), max(found)
        parts.add(f"{stage}.{first}" + (f"-{last}" if last > first else ""))
    return tuple(sorted(parts))
