"""Builds the programs of whole architectures without a GPU."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from convnext_dense.models.archs import resolve_arch
from convnext_dense.models.fused.gpu.description import (
    DOWNSAMPLE,
    STEM,
    Needs,
    Shape,
    StageSpec,
    Types,
)
from convnext_dense.models.fused.gpu.plan import plans_for
from convnext_dense.models.fused.gpu.program import Program
from convnext_dense.models.fused.gpu.stage import Stage

f32 = torch.float32
IMAGES, SIDE = 2, 512


class Programs(NamedTuple):
    """A stage with one plan, and its two programs for training with drop path."""

    stage: Stage
    forward: Program
    backward: Program


def autocast(work: torch.dtype) -> Types:
    """Parameters and the residual stream in fp32, products in ``work``."""
    return Types(work, f32, f32, "tf32" if work == f32 else "ieee")


def programs(
    arch: str,
    types: Types,
    *,
    grn: bool = False,
    shared: int = 227 * 1024,
    depths: tuple[int, ...] | None = None,
) -> Iterator[list[Programs]]:
    """Yield, for each stage, its programs with each plan, the preferred plan first.

    Args:
        arch: the architecture's name.
        types: the number types.
        grn: whether to build ConvNeXt V2, which has GRN and no layer scale.
        shared: bytes of shared memory that a kernel may use.
        depths: the blocks of each stage; by default the architecture's.
    """
    arch_depths, channels, eps = resolve_arch(arch)
    depths = depths or arch_depths
    side = SIDE
    before = 3
    for index, (blocks, c) in enumerate(zip(depths, channels, strict=True)):
        spec = StageSpec(
            DOWNSAMPLE if index else STEM, before, c, blocks, not grn, grn, True, eps
        )
        # Both the image and the entrance's weight are in channels_last.
        of_weight = (4 * before, 1, 2 * before, before)
        strides = (before * side * side, 1, before * side, before)
        if not index:
            of_weight = (16 * before, 1, 4 * before, before)
        shape = Shape(
            IMAGES, side, side, f32 if index == 0 else types.stream,
            () if index else strides, True, f32,
        )  # fmt: skip
        needs = Needs((index > 0, *[True] * len(spec.shapes)), True, True)
        rows = []
        for plan in plans_for(c, types.work, grn, "cuda", shared):
            stage = Stage(spec, types, plan, of_weight, None)
            rows.append(
                Programs(stage, stage.program(shape, True), stage.program(shape, needs))
            )
        yield rows
        before, side = c, spec.out_size(side, side)[0]
