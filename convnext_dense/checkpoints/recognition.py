"""Find the ConvNeXts in a checkpoint and give their tensors native names and shapes.

Which library named them is told by the name of the first depthwise convolution,
which differs between all of them; what stands before that name is the prefix of
the backbone in the file.
"""

import re
from collections.abc import Mapping
from math import isqrt
from typing import NamedTuple

from torch import Tensor

from convnext_dense.models.archs import NUM_STAGES

from .origins import AUTHORS, FCMAE, ORIGINS, TRANSFORMERS, Origin, names

SIGNATURE = "stages.0.0.dwconv.weight"  # the native one


class Found(NamedTuple):
    """A ConvNeXt in a checkpoint.

    Attributes:
        origin: whose names it has there.
        prefix: what its names begin with there.
        backbone: its tensors under native names and in native shapes, with the
            classifier's ``norm`` and ``head`` where there are any.
        rest: all other tensors; those of transformers' UPerNet under mmseg's names.
    """

    origin: Origin
    prefix: str
    backbone: dict[str, Tensor]
    rest: dict[str, Tensor]


class Layout(NamedTuple):
    """What a ConvNeXt is, as its tensors tell."""

    depths: tuple[int, ...]
    channels: tuple[int, ...]
    in_channels: int
    use_grn: bool
    layer_scale: bool


def recognise(weights: Mapping[str, Tensor]) -> list[Found]:
    """Every ConvNeXt in ``weights``, whichever library named it."""
    found = []
    for origin in ORIGINS:
        signature = names(origin, 1)[SIGNATURE]
        for name in weights:
            if name == signature or name.endswith(f".{signature}"):
                prefix = name.removesuffix(signature)
                found.append(_to_native(weights, origin, prefix))
    return found


def _to_native(weights: Mapping[str, Tensor], origin: Origin, prefix: str) -> Found:
    numbers = (int(n) for name in weights for n in re.findall(r"\b\d{1,3}\b", name))
    max_depth = 1 + max(numbers)
    native = {theirs: own for own, theirs in names(origin, max_depth, prefix).items()}
    backbone, rest = {}, {}
    for name, tensor in weights.items():
        if name in native:
            backbone[native[name]] = _native_shape(native[name], tensor, origin)
        elif origin is TRANSFORMERS:
            rest[_mmseg_name(name)] = tensor
        else:
            rest[name] = tensor
    if prefix.endswith("visual.trunk."):
        origin = origin._replace(name="OpenCLIP")
    # A last norm without a classifier is of the map, as DINOv3 uses it.
    of_the_map = not rest and "head.weight" not in backbone
    if origin is AUTHORS and f"{prefix}norms.3.weight" in rest:
        origin, of_the_map = origin._replace(name="DINOv3"), True
        for part in ("weight", "bias"):  # the same norm under a second name
            rest.pop(f"{prefix}norms.3.{part}", None)
    if of_the_map and "norm3.weight" not in backbone:
        for part in ("weight", "bias"):
            if f"norm.{part}" in backbone:
                backbone[f"norm3.{part}"] = backbone.pop(f"norm.{part}")
    return Found(origin, prefix, backbone, rest)


def _native_shape(name: str, tensor: Tensor, origin: Origin) -> Tensor:
    if origin is FCMAE and not name.startswith("downsample_layers.0."):
        return _dense(name, tensor)
    if name.endswith((".gamma", ".beta")):
        return tensor.flatten()  # (C, 1, 1) of torchvision, (1, 1, 1, 4 C) of GRN
    if ".pwconv" in name and tensor.shape[2:] == (1, 1):
        return tensor.flatten(1)  # pointwise layers as convolutions
    return tensor


def _dense(name: str, tensor: Tensor) -> Tensor:
    """MinkowskiEngine's layout: positions first, x before y; biases (1, C)."""
    if name.endswith("bias") or ".grn." in name:
        return tensor.flatten()
    if ".pwconv" in name or tensor.ndim not in (2, 3):
        return tensor
    if tensor.ndim == 2:  # depthwise: (positions, C)
        tensor = tensor[:, None]
    positions, before, after = tensor.shape
    size = isqrt(positions)
    if size**2 != positions:
        return tensor
    return tensor.permute(2, 1, 0).reshape(after, before, size, size).transpose(3, 2)


def _mmseg_name(name: str) -> str:
    """Of transformers' UPerNet and its auxiliary head."""
    if re.match(r"(decode|auxiliary)_head\.", name):
        name = name.replace(".batch_norm.", ".bn.")
        name = name.replace("_head.classifier.", "_head.conv_seg.")
    return name


def layout(backbone: Mapping[str, Tensor]) -> Layout:
    """What the ConvNeXt of these native names is."""
    blocks = [m for m in map(re.compile(r"stages\.(\d)\.(\d+)\.").match, backbone) if m]
    stages = [{m[2] for m in blocks if int(m[1]) == i} for i in range(NUM_STAGES)]
    while stages and not stages[-1]:  # the last ones may not have been built
        stages.pop()

    def size(name, dim=0):
        tensor = backbone.get(name)
        return tensor.shape[dim] if tensor is not None and tensor.ndim > dim else 0

    return Layout(
        depths=tuple(map(len, stages)),
        channels=tuple(size(f"stages.{i}.0.dwconv.weight") for i in range(len(stages))),
        in_channels=size("downsample_layers.0.0.weight", 1),
        use_grn=any(name.endswith(".grn.gamma") for name in backbone),
        layer_scale="stages.0.0.gamma" in backbone,
    )
