"""Variants of ConvNeXt whose weights no architecture of this package can take.

timm has some of them (timm, models/convnext.py): an overlapping stem (``*_ols``), and
RMSNorm (``*_rms``).
"""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from convnext_dense.models.archs import NUM_STAGES


def differences(backbone: Mapping[str, Tensor]) -> list[str]:
    """How the blocks or the stem differ from those of the papers; empty if not at all.

    Args:
        backbone: the tensors of a ConvNeXt under native names.
    """
    return list(_differences(backbone))


def _differences(backbone: Mapping[str, Tensor]) -> Iterator[str]:
    def kernel(name: str, usual: int) -> str:
        """The size of a convolution's kernel if it is unusual."""
        tensor = backbone.get(f"{name}.weight")
        if tensor is None or tensor.ndim != 4 or tensor.shape[2:] == (usual, usual):
            return ""
        return " x ".join(map(str, tensor.shape[2:]))

    def lack_bias(layer: str) -> bool:
        """Whether no layer of this name has a bias, in any block."""
        parameter = re.compile(rf"stages\.\d+\.\d+\.{layer}\.(weight|bias)")
        matches = filter(None, map(parameter.fullmatch, backbone))
        return {match[1] for match in matches} == {"weight"}

    norm = backbone.get("downsample_layers.0.1.weight")
    if size := kernel("downsample_layers.0.0", 4):
        overlaps = ", as timm's convnext_*_ols" if size == "3 x 3" else ""
        yield f"another stem (kernels of {size}, not of 4 x 4{overlaps})"
    elif norm is not None and norm.ndim == 4:
        yield "another stem (of several convolutions, not of one)"
    if size := kernel("downsample_layers.1.1", 2):
        yield f"other downsample layers (kernels of {size}, not of 2 x 2)"
    sizes = (kernel(f"stages.{i}.0.dwconv", 7) for i in range(NUM_STAGES))
    if size := next(filter(None, sizes), ""):
        yield f"other depthwise convolutions (kernels of {size}, not of 7 x 7)"
    if lack_bias("norm") and "downsample_layers.0.1.bias" not in backbone:
        yield "another norm (RMSNorm, without bias, as timm's convnext_*_rms)"
    if lack_bias("dwconv") and "stages.3.0.dwconv.weight" in backbone:
        yield "other depthwise convolutions (without bias)"
    wide = backbone.get("stages.0.0.pwconv1.weight")
    if wide is not None and wide.ndim == 2 and wide.shape[0] != 4 * wide.shape[1]:
        yield (
            f"other blocks (from {wide.shape[1]} to {wide.shape[0]} channels, not to "
            f"{4 * wide.shape[1]})"
        )
