"""Puts this package's ConvNeXt into a model's config in place of its backbone."""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from convnext_dense import ConvNeXt

from .shrinking import dicts

ARCH = "atto"
CHANNELS = (40, 80, 160, 320)
STRIDES = (4, 8, 16, 32)


BOUND = {
    "HourglassNet": "it takes two maps of stride 4 from stacked hourglasses",
    "RFP": "its neck calls a second DetectoRS_ResNet with the first one's output",
    "TridentResNet": "its RoI head takes the branches of a TridentResNet",
    "ICNet": "it calls the layers of its ResNet one by one",
    "MLANeck": "its neck adds maps of the same size",
    "BiSeNetV2": "its heads take the maps of BiSeNetV2's two branches",
    "DDRNet": "its head takes the maps of DDRNet's two branches",
    "PIDNet": "its head takes the maps of PIDNet's three branches",
    "UNet": "its head takes a map of stride 1",
}
"""Backbones and necks that fit no other backbone, by their type."""

CONTIGUOUS = ("CenterNetHead", "DMHead")
"""Heads that call ``view`` on a map, which fails in the channels_last format."""


class CannotFit(Exception):
    """The model takes something else from its backbone than a few feature maps."""


class Map(NamedTuple):
    """A feature map of the shipped backbone: its channels and its stride in pixels."""

    channels: int
    stride: int


def with_convnext(model: ConfigDict, size: int) -> ConfigDict:
    """The config with a ConvNeXt that returns maps as the shipped backbone does.

    The neck, or the heads where there is no neck, get ConvNeXt's channels where they
    state those of the shipped backbone.

    Args:
        model: a model's config; it is changed.
        size: height and width of the images in pixels.

    Raises:
        CannotFit: the shipped backbone does not return one to four feature maps.
    """
    if model.get("type") == "Detectron2Wrapper":
        raise CannotFit("it is a model of Detectron2")
    if "detector" in model:  # semi-supervised: student and teacher are built from it
        with_convnext(model.detector, size)
        return model
    if "backbone" not in model:
        raise CannotFit("its image encoder is not a backbone with feature maps")
    if isinstance(model.get("neck"), dict) and model.neck.type == "Feature2Pyramid":
        model.pop("neck")  # makes the maps of a vision transformer a pyramid
    holder, key, receivers = model, "backbone", _receivers(model)
    for node in (model.backbone, model.get("neck")):
        if isinstance(node, dict) and node.get("type") in BOUND:
            raise CannotFit(BOUND[node.type])
    if "backbone_cfg" in model.backbone:
        outer = _maps(model.backbone, size) or []
        holder, key, receivers = model.backbone, "backbone_cfg", [model.backbone]
    old = _maps(holder[key], size) or _stated_maps(receivers)
    if not 1 <= len(old) <= len(STRIDES):
        raise CannotFit(f"it takes {len(old)} feature maps from its backbone")
    stages, output_stride = _stages([feature_map.stride for feature_map in old])
    arch, channels = ARCH, CHANNELS
    if "shared_head" in model.get("roi_head", {}):
        # A stage of a ResNet, which takes 1024 channels: as many as XL's third stage.
        channels = (256, 512, 1024, 2048)
        arch = dict(depths=[1, 1, 1, 1], channels=list(channels))
    holder[key] = ConfigDict(type="ConvNeXt", arch=arch, out_indices=stages)
    if output_stride:
        holder[key].output_stride = output_stride
    if any(node.get("type") in CONTIGUOUS for node in dicts(model)):
        holder[key].channels_last = False
    new = [channels[stage] for stage in stages]
    for node in [node for receiver in receivers for node in dicts(receiver)]:
        _replace_channels(node, [feature_map.channels for feature_map in old], new)
    _fit_special_cases(model, new)
    if holder is not model:
        for receiver in _receivers(model):
            for node in dicts(receiver):
                _replace_channels(
                    node,
                    [feature_map.channels for feature_map in outer],
                    [feature_map.channels for feature_map in _maps(holder, size) or []],
                )
    return model


def _receivers(model: ConfigDict) -> list:
    """The parts of a config that take the backbone's maps: the neck, else the heads."""
    if model.get("neck"):
        return [model.neck[0] if isinstance(model.neck, list) else model.neck]
    heads = [model[key] for key in model if key.endswith("head") and model[key]]
    # The other heads of K-Net take what this one returns.
    return [
        head.kernel_generate_head if "kernel_generate_head" in head else head
        for head in heads
    ]


def _maps(backbone: ConfigDict, size: int) -> list[Map] | None:
    """What the shipped backbone returns; None if it cannot be built here."""
    plain = {
        # Deformable convolutions and attention do not change the number of channels.
        key: value
        for key, value in backbone.items()
        if key not in ("dcn", "stage_with_dcn", "plugins")
    }
    try:
        maps = _outputs(plain, size, "meta")  # computes nothing
    except (RuntimeError, NotImplementedError):
        maps = _outputs(plain, size, "cpu")
    except (ImportError, KeyError, ValueError):
        # Its package is missing, or this PyTorch refuses BatchNorm's eps=0.
        return None
    if isinstance(maps, torch.Tensor):
        maps = [maps]
    if not all(isinstance(feature_map, torch.Tensor) for feature_map in maps):
        raise CannotFit("it takes class tokens beside the feature maps")
    if any(feature_map.dim() != 4 for feature_map in maps):
        raise CannotFit("it takes tokens from its backbone, no feature maps")
    return [Map(m.shape[1], round(size / m.shape[3])) for m in maps]


def _outputs(backbone: dict, size: int, device: str) -> Any:
    with torch.device(device), torch.no_grad():
        module = MODELS.build(backbone)
        module.eval()
        return module(torch.zeros(2, 3, size, size))


def _stated_maps(receivers: list) -> list[Map]:
    """The maps that the neck or the heads state, if the backbone cannot be built."""
    for node in [node for receiver in receivers for node in dicts(receiver)]:
        channels = node.get("in_channels")
        if isinstance(channels, list | tuple):
            strides = STRIDES[-len(channels) :]
            return [Map(*m) for m in zip(channels, strides, strict=True)]
    return []


def _stages(strides: Sequence[int]) -> tuple[list[int], int | None]:
    """The stages to return, and ``output_stride`` where the last ones are dilated."""
    if len(set(strides)) == len(strides) and set(strides) <= set(STRIDES):
        return [STRIDES.index(stride) for stride in strides], None
    last = list(range(len(STRIDES)))[-len(strides) :]
    takes_output_stride = "output_stride" in inspect.signature(ConvNeXt).parameters
    dilated = strides[-1] in (8, 16) and strides[0] < strides[-1]
    return last, strides[-1] if dilated and takes_output_stride else None


def _replace_channels(node: ConfigDict, old: list[int], new: list[int]) -> None:
    """Give a neck or a head the channels of the maps that it takes."""
    index = node.get("in_index")
    for key, value in list(node.items()):
        if not key.endswith(("in_channels", "context_channels")):
            continue
        if key == "in_channels" and isinstance(index, int):
            node[key] = new[index]
        elif key == "in_channels" and isinstance(index, list | tuple):
            node[key] = [new[i] for i in index]
        elif value == old or value == tuple(old):
            node[key] = type(value)(new)
        elif isinstance(value, list | tuple) and set(value) <= set(old):
            node[key] = [new[old.index(channels)] for channels in value]
        elif isinstance(value, int) and value in old:
            node[key] = new[len(old) - 1 - old[::-1].index(value)]


def _fit_special_cases(model: ConfigDict, new: list[int]) -> None:
    """Change what follows from the backbone's channels and is stated elsewhere."""
    neck = model.get("neck")
    if isinstance(neck, dict) and neck.type == "SSDNeck":
        # Its first outputs are the backbone's maps.
        neck.in_channels = tuple(new)
        neck.out_channels = (*new, *neck.out_channels[len(new) :])
        model.bbox_head.in_channels = neck.out_channels
    if isinstance(neck, dict) and neck.type == "JPU":
        # It returns its inputs, but for the last one four maps joined.
        returned = [*new[:-1], 4 * neck.get("mid_channels", 512)]
        for node in dicts([model.decode_head, model.get("auxiliary_head")]):
            if isinstance(node.get("in_channels"), list | tuple):
                node.in_channels = [returned[i] for i in node.in_index]
            elif "in_channels" in node:
                node.in_channels = returned[node.get("in_index", -1)]
    head = model.get("decode_head")
    if isinstance(head, dict) and head.type == "FCNHead" and head.num_convs == 0:
        head.channels = head.in_channels  # without a convolution they are the same
    if model.backbone.type == "BiSeNetV1":
        # Both paths together have the channels of the map of stride 16.
        narrow, wide, _ = model.backbone.context_channels
        model.backbone.spatial_channels = (64, 64, 64, wide - narrow)
    if model.backbone.type == "STDCContextPathNet":
        # It joins the context path with the map of stride 8.
        context = model.backbone.get("out_channels", 128)
        model.backbone.ffm_cfg.in_channels = new[-3] + context
