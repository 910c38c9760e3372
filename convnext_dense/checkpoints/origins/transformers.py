"""transformers' names (models/convnext, convnextv2, dinov3_convnext and upernet)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from convnext_dense.checkpoints.calls import Call
from convnext_dense.errors import InputError
from convnext_dense.models.archs import NUM_STAGES

from .adapter import Conversion, Library, NativeModel, check_eps, renamed
from .naming import Origin

if TYPE_CHECKING:
    from torch import Tensor


def _mmseg_name(name: str) -> str:
    """mmseg's name of a tensor of UPerNet's heads."""
    if re.match(r"(decode|auxiliary)_head\.", name):
        name = name.replace(".batch_norm.", ".bn.")
        name = name.replace("_head.classifier.", "_head.conv_seg.")
    return name


ORIGIN = Origin(
    "transformers",
    stem_conv="embeddings.patch_embeddings",
    stem_norm="embeddings.layernorm",
    down_norm="encoder.stages.{i}.downsampling_layer.0",
    down_conv="encoder.stages.{i}.downsampling_layer.1",
    block="encoder.stages.{i}.layers.{j}",
    norm="layernorm",
    gamma="layer_scale_parameter",
    grn_gamma="grn.weight",
    grn_beta="grn.bias",
    map_norm="hidden_states_norms.stage{n}",
    final_norm="layernorm",
    head="^classifier",
    rest_name=_mmseg_name,
)
DINOV3 = Origin(
    "transformers, DINOv3",
    stem_conv="stages.0.downsample_layers.0",
    stem_norm="stages.0.downsample_layers.1",
    down_norm="stages.{i}.downsample_layers.0",
    down_conv="stages.{i}.downsample_layers.1",
    block="stages.{i}.layers.{j}",
    dwconv="depthwise_conv",
    norm="layer_norm",
    pwconv1="pointwise_conv1",
    pwconv2="pointwise_conv2",
    map_norm=None,
    final_norm="^layer_norm",
    head=None,
)


def _shape(name: str, tensor: Tensor) -> Tensor:
    return tensor.view(1, 1, 1, -1) if ".grn." in name else tensor


def _write(model: NativeModel) -> Conversion:
    check_eps(model, "transformers")
    layout = model.layout
    v2 = "V2" if layout.use_grn else ""
    settings: dict[str, Any] = dict(
        num_channels=layout.in_channels,
        depths=list(layout.depths),
        hidden_sizes=list(layout.channels),
    )
    if not v2:
        settings["layer_scale_init_value"] = float(layout.layer_scale)
    elif layout.layer_scale:
        raise InputError("transformers has no ConvNeXt with both GRN and layer scale")
    if model.classes:
        config = Call(
            f"transformers.ConvNext{v2}Config", **settings, num_labels=model.classes
        )
        call = Call(f"transformers.ConvNext{v2}ForImageClassification", config)
        return renamed(model, ORIGIN, call, f"convnext{v2.lower()}.", _shape)
    if model.norms == [3] and not v2 and layout.layer_scale:
        config = Call("transformers.DINOv3ConvNextConfig", **settings)
        call = Call("transformers.DINOv3ConvNextModel", config)
        return renamed(model.with_renamed("norm3", "norm"), DINOV3, call)
    if not model.norms:
        model = _with_norms(model)
    stages = [f"stage{i + 1}" for i in model.norms]
    config = Call(f"transformers.ConvNext{v2}Config", **settings, out_features=stages)
    if any(name.startswith("decode_head.psp_modules.") for name in model.rest):
        return _write_upernet(model, config)
    call = Call(f"transformers.ConvNext{v2}Backbone", config)
    return renamed(model, ORIGIN, call, shape=_shape)


def _with_norms(model: NativeModel) -> NativeModel:
    """The model with a norm for each map, as a new backbone of transformers has it."""
    norms = {}
    for i in range(NUM_STAGES):
        like = model.backbone[f"stages.{i}.0.norm.weight"]
        norms[f"norm{i}.weight"] = like.new_ones(like.shape)
        norms[f"norm{i}.bias"] = like.new_zeros(like.shape)
    return model._replace(
        backbone={**model.backbone, **norms}, norms=list(range(NUM_STAGES))
    )


def _write_upernet(model: NativeModel, backbone: Call) -> Conversion:
    """mmseg's UPerNet; other tensors than those of its heads are left."""
    heads, others = {}, []
    for name, tensor in model.rest.items():
        if re.match(r"(decode|auxiliary)_head\.", name):
            name = name.replace("_head.conv_seg.", "_head.classifier.")
            heads[name.replace(".bn.", ".batch_norm.")] = tensor
        else:
            others.append(name)
    classes, channels = heads["decode_head.classifier.weight"].shape[:2]
    settings: dict[str, Any] = dict(
        backbone_config=backbone, num_labels=classes, hidden_size=channels
    )
    auxiliary = heads.get("auxiliary_head.convs.0.conv.weight")
    if auxiliary is None:
        settings.update(use_auxiliary_head=False)
    else:
        settings.update(
            auxiliary_in_channels=auxiliary.shape[1],
            auxiliary_channels=auxiliary.shape[0],
        )
    call = Call(
        "transformers.UperNetForSemanticSegmentation",
        Call("transformers.UperNetConfig", **settings),
    )
    conversion = renamed(model, ORIGIN, call, "backbone.", _shape, heads)
    return conversion._replace(left=[*conversion.left, *others])


TRANSFORMERS = Library("transformers", (ORIGIN, DINOV3), _write)
