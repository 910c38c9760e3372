"""Checks a stage's kernels against plain PyTorch, on a small input."""

import torch
from torch import Tensor

from . import reference
from .autograd import apply_stage
from .compiled import compile_all
from .description import STEM, Needs, Shape, StageSpec, Types
from .program import Program
from .stage import Stage
from .stage_arguments import StageArguments

# The largest relative error allowed: ten times what rounding causes. A wrong index, a
# missed border or a race causes far more.
_TOLERANCE = {torch.float32: 5e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}
_IMAGES, _HEIGHT = 2, 5


class Failed(RuntimeError):
    """A kernel's result differs from PyTorch's."""


@torch.inference_mode(False)  # inference mode does not allow a backward pass
def prove(stage: Stage, width: int, drop: bool, normed: torch.dtype | None) -> None:
    """Compare a stage's kernels with plain PyTorch on a small input.

    Args:
        stage: the stage. One block is enough, as all blocks run the same kernels.
        width: the width of the maps, which selects the convolution kernel.
        drop: whether to pass drop path factors.
        normed: the type of the normed map, or None.

    Raises:
        Failed: the results differ.
        Unavailable: a kernel cannot be compiled or loaded.
    """
    spec, types = stage.spec, stage.types
    device = torch.device("cpu" if stage.device is None else f"cuda:{stage.device}")
    x = _input(spec, types, width, device)
    parameters = reference.random_parameters(
        spec, types.parameters, device, stage.places.strides
    )
    factors = None
    if drop:
        factors = torch.full((spec.blocks, _IMAGES), 1.25, device=device)
        factors[:, 0] = 0.75
    shape = stage.shape_of(x, drop, normed)
    if stage.device is not None:
        compile_all(programs(stage, shape, x.requires_grad), stage.device)
    true_leaves = [t.detach().double().requires_grad_() for t in (x, *parameters)]
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        outs = apply_stage(stage, shape, x, StageArguments.of(parameters, factors))
        true_outs = reference.run(
            spec,
            true_leaves[0],
            true_leaves[1:],
            None if factors is None else factors.double(),
        )
        pairs = [
            (out, true)
            for out, true in zip(outs, true_outs, strict=True)
            if out is not None and true is not None
        ]
        generator = torch.Generator().manual_seed(1)
        probes = [
            torch.randn(m.shape, generator=generator).to(device) for m, _ in pairs
        ]
        leaves = [x, *parameters] if x.requires_grad else parameters
        if not x.requires_grad:
            true_leaves = true_leaves[1:]
        of_maps = [p.to(m.dtype) for p, (m, _) in zip(probes, pairs, strict=True)]
        # The gradient of a loss may have either layout.
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
        if not difference <= tolerance:  # also if it is NaN
            raise Failed(
                f"{name} differs from PyTorch's by {difference:.1e} of its size, where "
                f"{tolerance:.0e} is allowed"
            )


def programs(stage: Stage, shape: Shape, of_x: bool) -> list[Program]:
    """The programs of training, for every set of incoming gradients.

    The last stage has no gradient of the stream, and the gradient of the normed map may
    not be in channels_last.

    Args:
        stage, shape: the stage and its input.
        of_x: whether the input's gradient is needed.
    """
    requires_grad = (of_x, *[True] * stage.places.count)
    if not stage.spec.norm:
        needs = [Needs(requires_grad, True, False)]
    else:
        c = stage.spec.channels
        h, w = stage.spec.out_size(shape.height, shape.width)
        rows_first = c * h * w, h * w, w, 1
        needs = [
            Needs(requires_grad, True, True),
            Needs(requires_grad, False, True),
            Needs(requires_grad, True, True, rows_first),
        ]
    backward = [stage.program(shape, need) for need in needs]
    return [stage.program(shape, True), *backward]


def _input(spec: StageSpec, types: Types, width: int, device: torch.device) -> Tensor:
    """A random input of a stage whose maps are ``width`` wide."""
    generator = torch.Generator().manual_seed(2)
    # Rows and columns that fill no patch are cut off: there are some.
    stride = spec.stride
    size = _HEIGHT * stride + stride - 1, width * stride + stride - 1
    x = torch.randn(_IMAGES, spec.before, *size, generator=generator).to(device)
    if spec.entrance == STEM:
        return x
    x = x.to(types.stream, memory_format=torch.channels_last)
    return x.requires_grad_()


def _error(value: Tensor, truth: Tensor) -> float:
    """The relative error in the L2 norm."""
    norm = truth.norm().clamp_min(1e-12)
    return ((value.double() - truth).norm() / norm).item()
