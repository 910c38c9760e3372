"""Kernels prove themselves: a small stage, forwards and back, against plain PyTorch."""

import torch
from torch import Tensor

from . import reference
from .autograd import apply_stage
from .compiled import compile_all
from .description import STEM, Needs, Shape, StageKind, Types
from .given import Given
from .program import Program
from .stage import Stage

# The largest error allowed, relative to the truth's size: ten times what rounding does.
# A wrong index, a forgotten edge or a race is far beyond.
_TOLERANCE = {torch.float32: 5e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}
_IMAGES, _HEIGHT = 2, 5


class Failed(RuntimeError):
    """A kernel computed something else than PyTorch."""


@torch.inference_mode(False)  # inference mode would allow no backward pass
def prove(stage: Stage, width: int, drop: bool, normed: torch.dtype | None) -> None:
    """Compare a stage's kernels with plain PyTorch on a small input.

    Args:
        stage: one block is enough, as all blocks have the same kernels.
        width: of the maps; it decides which convolution is taken.
        drop: with drop path's factors.
        normed: the type of the normed map, or None.

    Raises:
        Failed: they differ.
        Unavailable: a kernel cannot be had.
    """
    kind, types = stage.kind, stage.types
    device = torch.device("cpu" if stage.device is None else f"cuda:{stage.device}")
    x = _input(kind, types, width, device)
    parameters = reference.random_parameters(
        kind, types.parameters, device, stage.places.strides
    )
    factors = None
    if drop:
        factors = torch.full((kind.blocks, _IMAGES), 1.25, device=device)
        factors[:, 0] = 0.75
    shape = stage.shape_of(x, drop, normed)
    if stage.device is not None:
        compile_all(programs(stage, shape, x.requires_grad), stage.device)
    true_leaves = [t.detach().double().requires_grad_() for t in (x, *parameters)]
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        mine = apply_stage(stage, shape, x, Given.of(parameters, factors))
        true = reference.run(
            kind,
            true_leaves[0],
            true_leaves[1:],
            None if factors is None else factors.double(),
        )
        pairs = [(m, t) for m, t in zip(mine, true, strict=True) if m is not None]
        generator = torch.Generator().manual_seed(1)
        probes = [
            torch.randn(m.shape, generator=generator).to(device) for m, _ in pairs
        ]
        leaves = [x, *parameters] if x.requires_grad else parameters
        if not x.requires_grad:
            true_leaves = true_leaves[1:]
        of_maps = [p.to(m.dtype) for p, (m, _) in zip(probes, pairs, strict=True)]
        # both layouts in which a loss's gradient comes
        layouts = torch.channels_last, torch.contiguous_format
        grads, again = (
            torch.autograd.grad(
                [m for m, _ in pairs],
                leaves,
                [p.contiguous(memory_format=layout) for p in of_maps],
                retain_graph=True,
            )
            for layout in layouts
        )
        true_grads = torch.autograd.grad(
            [t for _, t in pairs], true_leaves, [p.double() for p in probes]
        )
    names = ["the stream", "the normed map"][: len(pairs)]
    names += [f"gradient {index}" for index in range(len(grads))] * 2
    tolerance = _TOLERANCE[types.work]
    compared = [*pairs, *zip([*grads, *again], [*true_grads] * 2, strict=True)]
    for name, (value, truth) in zip(names, compared, strict=True):
        difference = _error(value, truth)
        if not difference <= tolerance:  # NaN is no proof
            raise Failed(
                f"{name} differs from PyTorch's by {difference:.1e} of its size, where "
                f"{tolerance:.0e} is allowed"
            )


def programs(stage: Stage, shape: Shape, of_x: bool) -> list[Program]:
    """What training takes: also where the stage is the last, and where the gradient of
    the normed map is not in channels_last. ``of_x``: the input's gradient is wanted."""
    wanted = (of_x, *[True] * stage.places.count)
    if not stage.kind.norm:
        needs = [Needs(wanted, True, False)]
    else:
        c = stage.kind.channels
        h, w = stage.kind.out_size(shape.height, shape.width)
        rows_first = c * h * w, h * w, w, 1
        needs = [
            Needs(wanted, True, True),
            Needs(wanted, False, True),
            Needs(wanted, True, True, rows_first),
        ]
    return [stage.program(shape, need) for need in (True, *needs)]


def _input(kind: StageKind, types: Types, width: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    # 3 columns and rows more than fill a patch
    stride = {"stem": 4, "downsample": 2}.get(kind.entrance, 1)
    size = _HEIGHT * stride + stride - 1, width * stride + stride - 1
    x = torch.randn(_IMAGES, kind.before, *size, generator=generator).to(device)
    if kind.entrance == STEM:
        return x
    x = x.to(types.stream, memory_format=torch.channels_last)
    return x.requires_grad_()


def _error(value: Tensor, truth: Tensor) -> float:
    norm = truth.norm().clamp_min(1e-12)
    return ((value.double() - truth).norm() / norm).item()
