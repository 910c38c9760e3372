"""The authors' names, which are the native ones, and those of DINOv3, EUPE and FCMAE.

Sources: github.com/facebookresearch/ConvNeXt (models/convnext.py), ConvNeXt-V2
(models/convnextv2_sparse.py and utils.remap_checkpoint_keys) and
github.com/facebookresearch/dinov3 (models/convnext.py); for EUPE, which builds on
DINOv3's code, timm (models/convnext.py, checkpoint_filter_fn).
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING

from .adapter import Conversion, Library, NativeModel, renamed
from .naming import Origin, native_shape

if TYPE_CHECKING:
    from torch import Tensor


def _dense_shape(name: str, tensor: Tensor) -> Tensor:
    """From the shape of a sparse layer to the native one.

    MinkowskiEngine stores a kernel as (positions, in, out), a depthwise one as
    (positions, C), where positions count along y first; and a bias as (1, C).
    """
    if name.startswith("downsample_layers.0."):
        return native_shape(name, tensor)
    if name.endswith("bias") or ".grn." in name:
        return tensor.flatten()
    if ".pwconv" in name or tensor.ndim not in (2, 3):
        return tensor
    if tensor.ndim == 2:
        tensor = tensor[:, None]
    positions, before, after = tensor.shape
    size = isqrt(positions)
    if size**2 != positions:
        return tensor
    return tensor.permute(2, 1, 0).reshape(after, before, size, size).transpose(3, 2)


AUTHORS = Origin("the authors' names")
# Its last norm belongs to the last output map, and has the second name norms.3. EUPE's
# files have the same names, and may have the projectors of its distillation besides.
DINOV3 = AUTHORS._replace(
    name="DINOv3 or EUPE",
    map_norm=None,
    last_map_norm="norm",
    final_norm=None,
    twin="norms.3",
)
EUPE = DINOV3._replace(name="EUPE", twin=None, beside="projectors")
FCMAE = Origin(
    "the authors' FCMAE, sparse",
    down_norm="downsample_layers.{i}.0.ln",
    norm="norm.ln",
    pwconv1="pwconv1.linear",
    pwconv2="pwconv2.linear",
    kernel="kernel",
    native_shape=_dense_shape,
)


def _write(model: NativeModel) -> Conversion:
    return renamed(
        model,
        AUTHORS,
        "this package's ConvNeXt",
        prefix="backbone." if model.whole else "",
        rest=model.rest if model.whole else None,
    )


NATIVE = Library("native", (EUPE, DINOV3, AUTHORS, FCMAE), _write)
