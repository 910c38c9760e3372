"""The host's time of a step: everything as on a GPU, but without the launches.

It needs no GPU. What is timed is Python: it finds a program, fills in addresses and
calls; and autograd around it.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from ...archs import resolve_arch
from . import native, reference
from .autograd import apply_stage
from .description import DOWNSAMPLE, STEM, Needs, StageKind, Types
from .given import Given
from .plan import HALVES, plans_for
from .stage import Stage

_CALLS = 20
_SIDE = 64  # pixels of the image: its size does not matter to the host


class HostRow(NamedTuple):
    """A stage: microseconds, and launches, of a forward and of a backward pass."""

    channels: int
    blocks: int
    forward_us: float
    backward_us: float
    forward_launches: int
    backward_launches: int


def measure(arch: str, use_grn: bool, drop_path_rate: float) -> list[HostRow]:
    """Each stage of an architecture, in bf16 under autocast, as on an H100."""
    with native.left_out():
        return list(_rows(arch, use_grn, drop_path_rate > 0))


def _rows(arch: str, use_grn: bool, drops: bool) -> Iterator[HostRow]:
    depths, channels, eps = resolve_arch(arch)
    types = Types(HALVES[0], torch.float32, torch.float32)
    before, side = 3, _SIDE
    for index, (blocks, c) in enumerate(zip(depths, channels, strict=True)):
        entrance = DOWNSAMPLE if index else STEM
        kind = StageKind(entrance, before, c, blocks, not use_grn, use_grn, True, eps)
        parameters = reference.random_parameters(
            kind, torch.float32, torch.device("cpu")
        )
        x = torch.rand(1, before, side, side).to(memory_format=torch.channels_last)
        x.requires_grad_(index > 0)
        drop = torch.ones(blocks, 1) if drops else None
        strides = parameters[2 if index else 0].stride()
        plan = plans_for(c, types.work, use_grn, "cuda")[0]
        stage = Stage(kind, types, plan, strides, None)
        yield _row(stage, x, parameters, drop)
        before, side = c, kind.out_size(side, side)[0]


def _row(stage: Stage, x, parameters, drop) -> HostRow:
    forwards, backwards = [], []
    shape = stage.shape_of(x, drop is not None, torch.float32)
    given = Given.of(parameters, drop)
    leaves = [t for t in (x, *parameters) if t.requires_grad]
    for _ in range(_CALLS):
        outs = []
        forwards.append(
            _seconds(lambda outs=outs: outs.extend(apply_stage(stage, shape, x, given)))
        )
        grads = [torch.zeros_like(t) for t in outs]
        backwards.append(
            _seconds(
                lambda outs=outs, grads=grads: torch.autograd.grad(outs, leaves, grads)
            )
        )
    wanted = (x.requires_grad, *(True for _ in parameters))
    programs = (
        stage.program(shape, True),
        stage.program(shape, Needs(wanted, True, True)),
    )
    return HostRow(
        stage.kind.channels,
        stage.kind.blocks,
        1e6 * min(forwards),
        1e6 * min(backwards),
        *(len(program.launches) for program in programs),
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
