"""How a library names a ConvNeXt's parameters.

An ``Origin`` holds one library's names as templates. ``names`` makes of it a table from
native names to theirs, which serves reading and writing. Native names are the authors'.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from convnext_dense.models.archs import NUM_STAGES

if TYPE_CHECKING:  # the tools' --help lists the table of origins without torch
    from torch import Tensor

SIGNATURE = "stages.0.0.dwconv.weight"  # the native name of what every ConvNeXt has


def native_shape(name: str, tensor: Tensor) -> Tensor:
    """Give a tensor with the native ``name`` its native shape.

    A pointwise layer stored as a convolution (4 C, C, 1, 1) becomes (4 C, C); layer
    scale and GRN, (C, 1, 1) in torchvision and (1, 1, 1, 4 C) elsewhere, become
    vectors.
    """
    if name.endswith((".gamma", ".beta")):
        return tensor.flatten()
    if ".pwconv" in name and tensor.shape[2:] == (1, 1):
        return tensor.flatten(1)
    return tensor


def same_name(name: str) -> str:
    """The name itself: the naming of tensors outside of the backbone is native."""
    return name


class Origin(NamedTuple):
    """One library's names, as templates. The defaults are the native names.

    In a template {i} is the stage from 0, {n} the stage from 1, and {j} the block;
    {d} = 2 i and {s} = 2 i + 1 are positions in one list of downsample layers and
    stages. A template that starts with ^ stands beside the backbone's prefix instead of
    below it. None: the library has no such parameter.

    Attributes:
        name: of the origin, for messages.
        map_norm: the norms of the output maps.
        last_map_norm: the norm of the last output map, where only that one has a norm.
        final_norm: the norm before the classifier.
        kernel: the last part of the name of convolutions after the stem.
        prefix: how the backbone's prefix must end, for a project that wraps another
            library's models.
        twin: a second name of the last norm, with which only this origin's files store
            it. It is needed to recognise the origin, and its tensors are dropped.
        beside: a module that only this origin's files have beside the backbone. It is
            needed to recognise the origin; its tensors are not used.
        native_shape: gives a tensor its native shape, by its native name.
        rest_name: the mmseg name of a tensor outside of the backbone.
    """

    name: str
    stem_conv: str = "downsample_layers.0.0"
    stem_norm: str = "downsample_layers.0.1"
    down_norm: str = "downsample_layers.{i}.0"
    down_conv: str = "downsample_layers.{i}.1"
    block: str = "stages.{i}.{j}"
    dwconv: str = "dwconv"
    norm: str = "norm"
    pwconv1: str = "pwconv1"
    pwconv2: str = "pwconv2"
    gamma: str = "gamma"
    grn_gamma: str = "grn.gamma"
    grn_beta: str = "grn.beta"
    map_norm: str | None = "norm{i}"
    last_map_norm: str | None = None
    final_norm: str | None = "norm"
    head: str | None = "head"
    kernel: str = "weight"
    prefix: str = ""
    twin: str | None = None
    beside: str | None = None
    native_shape: Callable[[str, Tensor], Tensor] = native_shape
    rest_name: Callable[[str], str] = same_name


def names(origin: Origin, max_depth: int, prefix: str = "") -> dict[str, str]:
    """The table from native names to the names in a file of ``origin``.

    Args:
        max_depth: the largest number of blocks of a stage.
        prefix: what the backbone's names begin with in the file.
    """
    table = {}
    beside = re.sub(r"[^.]+\.$", "", prefix)

    def path(template: str, place: dict[str, int]) -> str:
        theirs = template.format(**place)
        return beside + theirs[1:] if theirs[0] == "^" else prefix + theirs

    def add(
        native: str,
        template: str | None,
        place: dict[str, int],
        kernel: str = "weight",
    ) -> None:
        if template is not None:
            theirs = path(template, place)
            table[f"{native}.weight"] = f"{theirs}.{kernel}"
            table[f"{native}.bias"] = f"{theirs}.bias"

    add("downsample_layers.0.0", origin.stem_conv, {})
    add("downsample_layers.0.1", origin.stem_norm, {})
    for i in range(NUM_STAGES):
        place = dict(i=i, n=i + 1, d=2 * i, s=2 * i + 1)
        if i > 0:
            add(f"downsample_layers.{i}.0", origin.down_norm, place)
            add(f"downsample_layers.{i}.1", origin.down_conv, place, origin.kernel)
        for j in range(max_depth):
            native, block = f"stages.{i}.{j}", origin.block.format(j=j, **place)
            add(f"{native}.dwconv", f"{block}.{origin.dwconv}", place, origin.kernel)
            for layer in ("norm", "pwconv1", "pwconv2"):
                add(f"{native}.{layer}", f"{block}.{getattr(origin, layer)}", place)
            table[f"{native}.gamma"] = f"{prefix}{block}.{origin.gamma}"
            table[f"{native}.grn.gamma"] = f"{prefix}{block}.{origin.grn_gamma}"
            table[f"{native}.grn.beta"] = f"{prefix}{block}.{origin.grn_beta}"
        add(f"norm{i}", origin.map_norm, place)
    add(f"norm{NUM_STAGES - 1}", origin.last_map_norm, {})
    add("norm", origin.final_norm, {})
    add("head", origin.head, {})
    return table
