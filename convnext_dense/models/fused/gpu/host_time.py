"""Measures the host's time of a training step, without a GPU.

Everything runs as on a GPU except the launches themselves. The time is that of Python:
finding a program, updating addresses, calling C functions, and autograd around it.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch

from ...archs import resolve_arch
from . import native, reference
from .autograd import apply_stage
from .description import DOWNSAMPLE, STEM, Needs, StageSpec, Types
from .plan import HALVES, plans_for
from .stage import Stage
from .stage_arguments import StageArguments

_CALLS = 20
_SIDE = 64  # pixels of the image, whose size does not change the host's time


class HostRow(NamedTuple):
    """The host's time of a stage.

    Attributes:
        channels, blocks: of the stage.
        forward_us, backward_us: microseconds of a forward and of a backward pass.
        forward_launches, backward_launches: the launches of each.
    """

    channels: int
    blocks: int
    forward_us: float
    backward_us: float
    forward_launches: int
    backward_launches: int


def measure(arch: str, use_grn: bool, drop_path_rate: float) -> list[HostRow]:
    """Measure each stage of an architecture, in bf16 under autocast, as on an H100."""
    with native.skipped_launches():
        return list(_rows(arch, use_grn, drop_path_rate > 0))


def _rows(arch: str, use_grn: bool, drops: bool) -> Iterator[HostRow]:
    """The row of each stage; ``drops``: with drop path factors."""
    depths, channels, eps = resolve_arch(arch)
    types = Types(HALVES[0], torch.float32, torch.float32)
    before, side = 3, _SIDE
    for index, (blocks, c) in enumerate(zip(depths, channels, strict=True)):
        entrance = DOWNSAMPLE if index else STEM
        spec = StageSpec(entrance, before, c, blocks, not use_grn, use_grn, True, eps)
        parameters = reference.random_parameters(
            spec, torch.float32, torch.device("cpu")
        )
        x = torch.rand(1, before, side, side).to(memory_format=torch.channels_last)
        x.requires_grad_(index > 0)
        drop = torch.ones(blocks, 1) if drops else None
        strides = parameters[spec.entrance_weight].stride()
        plan = plans_for(c, types.work, use_grn, "cuda")[0]
        stage = Stage(spec, types, plan, strides, None)
        yield _row(stage, x, parameters, drop)
        before, side = c, spec.out_size(side, side)[0]


def _row(stage: Stage, x, parameters, drop) -> HostRow:
    """Measure a stage; the fastest of several calls counts."""
    forwards, backwards = [], []
    shape = stage.shape_of(x, drop is not None, torch.float32)
    arguments = StageArguments.of(parameters, drop)
    leaves = [t for t in (x, *parameters) if t.requires_grad]
    for _ in range(_CALLS):
        start = time.perf_counter()
        outs = [t for t in apply_stage(stage, shape, x, arguments) if t is not None]
        forwards.append(time.perf_counter() - start)
        grads = [torch.zeros_like(t) for t in outs]
        start = time.perf_counter()
        torch.autograd.grad(outs, leaves, grads)
        backwards.append(time.perf_counter() - start)
    requires_grad = (x.requires_grad, *(True for _ in parameters))
    programs = (
        stage.program(shape, True),
        stage.program(shape, Needs(requires_grad, True, True)),
    )
    return HostRow(
        stage.spec.channels,
        stage.spec.blocks,
        1e6 * min(forwards),
        1e6 * min(backwards),
        *(len(program.launches) for program in programs),
    )
