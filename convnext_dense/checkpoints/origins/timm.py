"""timm's names (timm, models/convnext.py), and OpenCLIP's, which wraps timm's models
(github.com/mlfoundations/open_clip, timm_model.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convnext_dense.checkpoints.calls import Call

from .adapter import Conversion, Library, NativeModel, renamed
from .naming import Origin

if TYPE_CHECKING:
    from torch import Tensor

ORIGIN = Origin(
    "timm",
    stem_conv="stem.0",
    stem_norm="stem.1",
    down_norm="stages.{i}.downsample.0",
    down_conv="stages.{i}.downsample.1",
    block="stages.{i}.blocks.{j}",
    dwconv="conv_dw",
    pwconv1="mlp.fc1",
    pwconv2="mlp.fc2",
    grn_gamma="mlp.grn.weight",
    grn_beta="mlp.grn.bias",
    map_norm=None,
    final_norm="head.norm",
    head="head.fc",
)
FEATURES = ORIGIN._replace(
    name="timm, features_only",
    stem_conv="stem_0",
    stem_norm="stem_1",
    down_norm="stages_{i}.downsample.0",
    down_conv="stages_{i}.downsample.1",
    block="stages_{i}.blocks.{j}",
    final_norm=None,
    head=None,
)
OPEN_CLIP = ORIGIN._replace(name="OpenCLIP", prefix="visual.trunk.")

# The archs for which timm has models, without and with GRN. The smallest have
# convolutions as pointwise layers.
_CONV_MLP = ("atto", "femto", "pico", "nano")
_ARCHS = {
    False: (*_CONV_MLP, "tiny", "small", "base", "large", "xlarge", "xxlarge"),
    True: (*_CONV_MLP, "tiny", "small", "base", "large", "huge"),
}


def _write(model: NativeModel) -> Conversion:
    layout = model.layout
    arch, grn = layout.arch, layout.use_grn
    conv_mlp = arch in _CONV_MLP

    def shape(name: str, tensor: Tensor) -> Tensor:
        pointwise = ".pwconv" in name and name.endswith("weight")
        return tensor[:, :, None, None] if conv_mlp and pointwise else tensor

    def call(**more: Any) -> Call:
        if arch in _ARCHS[grn] and layout.layer_scale != grn:
            name = f"convnext{'v2' if grn else ''}_{arch}"
            size: dict[str, Any] = {}
        else:  # timm ignores ls_init_value=None: only its V2 lacks layer scale
            name = "convnext_tiny" if layout.layer_scale else "convnextv2_tiny"
            size = dict(depths=layout.depths, dims=layout.channels)
            size.update(conv_mlp=conv_mlp, use_grn=grn)
        return Call(
            "timm.create_model", name, **size, in_chans=layout.in_channels, **more
        )

    if model.classes:
        return renamed(model, ORIGIN, call(num_classes=model.classes), shape=shape)
    if model.norms == [3]:
        model = model.with_renamed("norm3", "norm")
        return renamed(model, ORIGIN, call(num_classes=0), shape=shape)
    return renamed(model, FEATURES, call(features_only=True), shape=shape)


TIMM = Library("timm", (OPEN_CLIP, ORIGIN, FEATURES), _write)
