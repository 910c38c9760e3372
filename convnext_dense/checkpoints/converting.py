"""Give a checkpoint the names and shapes of another library."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from convnext_dense.errors import InputError
from convnext_dense.models.archs import ARCHS, NUM_STAGES
from convnext_dense.models.convnext import ConvNeXt
from convnext_dense.models.layer_norm import NORM_EPS

from . import origins
from .loading import check_finite, fit, tensors
from .origins import Origin
from .recognition import Layout, layout, recognise

# Which names the libraries have models for; timm's smallest have convolutions as
# pointwise layers.
_TIMM_CONV_MLP = ("atto", "femto", "pico", "nano")
_TIMM = {
    False: (*_TIMM_CONV_MLP, "tiny", "small", "base", "large", "xlarge", "xxlarge"),
    True: (*_TIMM_CONV_MLP, "tiny", "small", "base", "large", "huge"),
}
_TORCHVISION = ("tiny", "small", "base", "large")


class Conversion(NamedTuple):
    """A checkpoint under another library's names.

    Attributes:
        origin: whose names it had.
        weights: names and tensors for the library.
        left: native names of what the library has no place for.
        fits: Python that builds the model which takes ``weights`` strictly; what
            follows ' with ' is to be set on it.
        whole: these are a whole detector's or segmentor's.
    """

    origin: str
    weights: dict[str, Tensor]
    left: list[str]
    fits: str
    whole: bool


def convert(content, source: str, to: str) -> Conversion:
    """Rename what ``read`` has returned.

    A classifier stays one. A detector or segmentor stays whole under native names
    and mmpretrain's, and UPerNet under those of transformers; for others its
    backbone is taken. Values and dtypes do not change.

    Args:
        content: of a checkpoint with one ConvNeXt, from any origin.
        source: its name, for messages.
        to: 'native', 'timm', 'transformers', 'torchvision' or 'mmpretrain'.

    Raises:
        InputError: ``content`` is not whole, or ``to`` cannot express it.
    """
    weights = tensors(content, source)
    all_found = recognise(weights)
    if len(all_found) != 1:
        raise InputError(
            f"{source} holds {len(all_found) or 'no'} ConvNeXts: give a file with one"
        )
    found = all_found[0]
    here = layout(found.backbone)
    if len(here.depths) < NUM_STAGES:
        raise InputError(
            f"{source} holds only the first {len(here.depths)} of {NUM_STAGES} stages"
        )
    if 0 in (*here.depths, *here.channels, here.in_channels):
        raise InputError(f"{source} is not whole: its stem or a stage is missing")
    with torch.device("meta"):
        model = ConvNeXt(
            dict(depths=here.depths, channels=here.channels),
            in_channels=here.in_channels,
            use_grn=here.use_grn,
            layer_scale_init_value=float(here.layer_scale),
        )
    fit(model, found, source)  # is it whole?
    check_finite({**found.backbone, **found.rest}, source)

    backbone = dict(found.backbone)
    norms = [i for i in range(NUM_STAGES) if f"norm{i}.weight" in backbone]
    if "head.weight" in backbone and "norm.weight" not in backbone and norms == [3]:
        _rename(backbone, "norm3", "norm")  # mmpretrain's name of a classifier's norm
        norms = []
    whole = found.prefix == "backbone." and bool(found.rest)
    return _WRITERS[to](
        _Part(found.origin.name, backbone, found.rest, whole, here, norms)
    )


class _Part(NamedTuple):
    """What is there to write, under native names."""

    origin: str
    backbone: dict[str, Tensor]
    rest: dict[str, Tensor]
    whole: bool  # rest is the other part of a detector or segmentor
    layout: Layout
    norms: list[int]  # output maps that have a norm

    @property
    def arch(self) -> str | None:
        known = (n for n, a in ARCHS.items() if a[:2] == self.layout[:2])
        return next(known, None)

    @property
    def classes(self) -> int | None:
        head = self.backbone.get("head.weight")
        return None if head is None else head.shape[0]


def _rename(backbone: dict[str, Tensor], old: str, new: str) -> None:
    for kind in ("weight", "bias"):
        if f"{old}.{kind}" in backbone:
            backbone[f"{new}.{kind}"] = backbone.pop(f"{old}.{kind}")


def _write(part: _Part, origin: Origin, prefix: str, fits: str, shape=None, rest=None):
    table = origins.names(origin, max(part.layout.depths), prefix)
    weights = {
        table[name]: (shape(name, tensor) if shape else tensor)
        for name, tensor in part.backbone.items()
        if name in table
    }
    left = [name for name in part.backbone if name not in table]
    if rest is None:
        left += part.rest
    weights.update(rest or {})
    return Conversion(part.origin, weights, left, fits, whole=rest is not None)


def _to_native(part: _Part) -> Conversion:
    rest = part.rest if part.whole else None
    prefix = "backbone." if part.whole else ""
    return _write(part, origins.AUTHORS, prefix, "this package's ConvNeXt", rest=rest)


def _to_mmpretrain(part: _Part) -> Conversion:
    if part.classes:
        _rename(part.backbone, "norm", "norm3")
    rest = part.rest if part.whole else None
    fits = "mmpretrain.ConvNeXt, by init_cfg.prefix='backbone.'"
    return _write(part, origins.MMPRETRAIN, "backbone.", fits, rest=rest)


def _to_timm(part: _Part) -> Conversion:
    def shape(name, tensor):
        pointwise = ".pwconv" in name and name.endswith("weight")
        return tensor[:, :, None, None] if conv_mlp and pointwise else tensor

    conv_mlp, grn = part.arch in _TIMM_CONV_MLP, part.layout.use_grn
    if part.arch in _TIMM[grn] and part.layout.layer_scale != grn:
        build = f"timm.create_model('convnext{'v2' if grn else ''}_{part.arch}', "
    else:  # it ignores None, so the absence of layer scale has to come from V2
        base = "convnext_tiny" if part.layout.layer_scale else "convnextv2_tiny"
        build = (
            f"timm.create_model('{base}', depths={part.layout.depths}, "
            f"dims={part.layout.channels}, conv_mlp={conv_mlp}, use_grn={grn}, "
        )
    build += f"in_chans={part.layout.in_channels}, "
    if part.classes:
        fits = build + f"num_classes={part.classes})"
        return _write(part, origins.TIMM, "", fits, shape)
    if part.norms == [3]:
        _rename(part.backbone, "norm3", "norm")
        return _write(part, origins.TIMM, "", build + "num_classes=0)", shape)
    fits = build + "features_only=True)"
    return _write(part, origins.TIMM_FEATURES, "", fits, shape)


def _check_eps(part: _Part, library: str) -> None:
    if part.arch and ARCHS[part.arch].norm_eps != NORM_EPS:
        raise InputError(
            f"{library} computes every norm with eps {NORM_EPS}, and arch="
            f"{part.arch!r} has {ARCHS[part.arch].norm_eps}: its outputs would differ"
        )


def _to_transformers(part: _Part) -> Conversion:
    def shape(name, tensor):
        return tensor.view(1, 1, 1, -1) if ".grn." in name else tensor

    _check_eps(part, "transformers")
    v2 = "V2" if part.layout.use_grn else ""
    config = (
        f"num_channels={part.layout.in_channels}, depths={list(part.layout.depths)}, "
        f"hidden_sizes={list(part.layout.channels)}"
    )
    if not v2:
        config += f", layer_scale_init_value={float(part.layout.layer_scale)}"
    elif part.layout.layer_scale:
        raise InputError("transformers has no ConvNeXt with both GRN and layer scale")
    if part.classes:
        fits = (
            f"transformers.ConvNext{v2}ForImageClassification("
            f"transformers.ConvNext{v2}Config({config}, num_labels={part.classes}))"
        )
        prefix = f"convnext{v2.lower()}."
        return _write(part, origins.TRANSFORMERS, prefix, fits, shape)
    if part.norms == [3] and not v2 and part.layout.layer_scale:
        _rename(part.backbone, "norm3", "norm")
        fits = (
            "transformers.DINOv3ConvNextModel("
            f"transformers.DINOv3ConvNextConfig({config}))"
        )
        return _write(part, origins.TRANSFORMERS_DINOV3, "", fits)
    for i in () if part.norms else range(NUM_STAGES):  # as its backbone starts
        like = part.backbone[f"stages.{i}.0.norm.weight"]
        part.backbone[f"norm{i}.weight"] = torch.ones_like(like)
        part.backbone[f"norm{i}.bias"] = torch.zeros_like(like)
    stages = [f"stage{i + 1}" for i in part.norms or range(NUM_STAGES)]
    config = f"transformers.ConvNext{v2}Config({config}, out_features={stages})"
    if any(name.startswith("decode_head.psp_modules.") for name in part.rest):
        return _to_upernet(part, config, shape)
    fits = f"transformers.ConvNext{v2}Backbone({config})"
    return _write(part, origins.TRANSFORMERS, "", fits, shape)


def _to_upernet(part: _Part, config: str, shape) -> Conversion:
    heads, others = {}, []
    for name, tensor in part.rest.items():
        if re.match(r"(decode|auxiliary)_head\.", name):
            name = name.replace("_head.conv_seg.", "_head.classifier.")
            heads[name.replace(".bn.", ".batch_norm.")] = tensor
        else:
            others.append(name)
    classifier = heads["decode_head.classifier.weight"]
    fits = (
        f"transformers.UperNetForSemanticSegmentation(transformers.UperNetConfig("
        f"backbone_config={config}, num_labels={classifier.shape[0]}, "
        f"hidden_size={classifier.shape[1]}, "
    )
    auxiliary = heads.get("auxiliary_head.convs.0.conv.weight")
    if auxiliary is None:
        fits += "use_auxiliary_head=False))"
    else:
        fits += (
            f"auxiliary_in_channels={auxiliary.shape[1]}, "
            f"auxiliary_channels={auxiliary.shape[0]}))"
        )
    written = _write(part, origins.TRANSFORMERS, "backbone.", fits, shape, heads)
    return written._replace(left=[*written.left, *others])


def _to_torchvision(part: _Part) -> Conversion:
    def shape(name, tensor):
        return tensor[:, None, None] if name.endswith(".gamma") else tensor

    _check_eps(part, "torchvision")
    here = part.layout
    if here.use_grn or not here.layer_scale or here.in_channels != 3:
        raise InputError(
            "torchvision has only ConvNeXt V1, with layer scale and for 3 channels; "
            f"this one has use_grn={here.use_grn}, layer_scale={here.layer_scale}, "
            f"in_channels={here.in_channels}"
        )
    if part.arch in _TORCHVISION:
        fits = f"torchvision.models.convnext_{part.arch}("
    else:
        stages = zip(
            here.channels, (*here.channels[1:], None), here.depths, strict=True
        )
        setting = "torchvision.models.convnext.CNBlockConfig"
        settings = ", ".join(f"{setting}{stage}" for stage in stages)
        fits = f"torchvision.models.convnext.ConvNeXt([{settings}], "
    if part.classes:
        fits += f"num_classes={part.classes})"
    elif part.norms == [3]:
        _rename(part.backbone, "norm3", "norm")
        fits += ") with classifier[2] = torch.nn.Identity()"
    else:
        fits += ") with classifier = torch.nn.Identity()"
    return _write(part, origins.TORCHVISION, "", fits, shape)


_WRITERS = dict(
    native=_to_native,
    timm=_to_timm,
    transformers=_to_transformers,
    torchvision=_to_torchvision,
    mmpretrain=_to_mmpretrain,
)


def meta_of(content) -> Mapping | None:
    """What a run of a toolbox writes beside the weights: classes, palette, config."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return meta if isinstance(meta, Mapping) else None
