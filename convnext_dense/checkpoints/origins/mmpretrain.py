"""mmpretrain's names (mmpretrain, models/backbones/convnext.py)."""

from .adapter import Conversion, Library, NativeModel, renamed
from .naming import Origin

ORIGIN = Origin(
    "mmpretrain",
    dwconv="depthwise_conv",
    pwconv1="pointwise_conv1",
    pwconv2="pointwise_conv2",
    final_norm=None,  # a classifier uses norm3 for it
    head="^head.fc",
)


def _write(model: NativeModel) -> Conversion:
    if model.classes:
        model = model.with_renamed("norm", "norm3")
    return renamed(
        model,
        ORIGIN,
        "mmpretrain.ConvNeXt, by init_cfg.prefix='backbone.'",
        prefix="backbone.",
        rest=model.rest if model.whole else None,
    )


MMPRETRAIN = Library("mmpretrain", (ORIGIN,), _write)
