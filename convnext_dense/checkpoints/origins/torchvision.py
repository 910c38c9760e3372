"""torchvision's names (torchvision, models/convnext.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convnext_dense.checkpoints.calls import Call
from convnext_dense.errors import InputError

from .adapter import Conversion, Library, NativeModel, check_eps, renamed
from .naming import Origin

if TYPE_CHECKING:
    from torch import Tensor

ORIGIN = Origin(
    "torchvision",
    stem_conv="features.0.0",
    stem_norm="features.0.1",
    down_norm="features.{d}.0",
    down_conv="features.{d}.1",
    block="features.{s}.{j}",
    dwconv="block.0",
    norm="block.2",
    pwconv1="block.3",
    pwconv2="block.5",
    gamma="layer_scale",
    map_norm=None,
    final_norm="classifier.0",
    head="classifier.2",
)
_ARCHS = ("tiny", "small", "base", "large")


def _shape(name: str, tensor: Tensor) -> Tensor:
    return tensor[:, None, None] if name.endswith(".gamma") else tensor


def _write(model: NativeModel) -> Conversion:
    check_eps(model, "torchvision")
    layout = model.layout
    if layout.use_grn or not layout.layer_scale or layout.in_channels != 3:
        raise InputError(
            "torchvision has only ConvNeXt V1, with layer scale and for 3 channels; "
            f"this one has use_grn={layout.use_grn}, layer_scale={layout.layer_scale}, "
            f"in_channels={layout.in_channels}"
        )
    classes = dict(num_classes=model.classes) if model.classes else {}
    if layout.arch in _ARCHS:
        call = Call(f"torchvision.models.convnext_{layout.arch}", **classes)
    else:
        after = (*layout.channels[1:], None)
        stages = [
            Call("torchvision.models.convnext.CNBlockConfig", *stage)
            for stage in zip(layout.channels, after, layout.depths, strict=True)
        ]
        call = Call("torchvision.models.convnext.ConvNeXt", stages, **classes)
    if model.norms == [3] and not model.classes:
        model = model.with_renamed("norm3", "norm")
        call = call.and_without("classifier.2")
    elif not model.classes:
        call = call.and_without("classifier")
    return renamed(model, ORIGIN, call, shape=_shape)


TORCHVISION = Library("torchvision", (ORIGIN,), _write)
