"""A stage as PyTorch's autograd sees it: one function, forwards and back."""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from .description import NONE, STEM, Shape, StageKind, Types
from .given import Given
from .stage import Stage, as_map


def apply_stage(
    stage: Stage, shape: Shape, x: Tensor, given: Given
) -> tuple[Tensor, Tensor | None]:
    """The stage's stream and normed map, (N, C, H, W) each; None without the latter.

    Raises:
        NotImplementedError: in the backward pass, with ``create_graph=True``.
    """
    if needs_backward(x, given):
        return _Stage.apply(stage, shape, given, x, *given.parameters)
    return stage.forward(x, given, shape, False)[:2]


def needs_backward(x: Tensor, given: Given) -> bool:
    return torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in given.parameters)
    )


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(ctx, stage, shape, given, x, *_):
        out, normed, kept = stage.forward(x, given, shape, True)
        # the output norm alone needs the stream again
        ctx.save_for_backward(x, None if normed is None else out, kept)
        ctx.stage, ctx.shape = stage, shape
        ctx.given, ctx.versions = given, versions(given)
        ctx.set_materialize_grads(False)
        return out, normed

    @staticmethod
    def backward(ctx, g, g_normed):
        if torch.is_grad_enabled():
            refuse_second_derivative()
        stage, shape, given = ctx.stage, ctx.shape, ctx.given
        x, out, kept = ctx.saved_tensors
        x, out = laid_out(x, shape), as_map(out, stage.types.stream)
        if g is None and g_normed is None:
            return (None,) * (4 + len(given.parameters))
        check_versions(given, ctx.versions)
        given = Given.of(given.parameters, given.drop)  # FSDP gathered them anew
        wanted = ctx.needs_input_grad[3:]
        dx, grads = stage.backward(x, out, kept, given, shape, wanted, g, g_normed)
        views = gradients(stage.kind, stage.types, grads, given.parameters, wanted[1:])
        return None, None, None, dx, *views


def laid_out(x: Tensor, shape: Shape) -> Tensor:
    """A stage's input as it was: what moves saved tensors to the CPU and back, as
    ``torch.autograd.graph.save_on_cpu``, may give them another layout."""
    if not shape.strides:
        return as_map(x, x.dtype)
    if x.stride() == shape.strides:
        return x
    own = torch.empty_strided(x.shape, shape.strides, dtype=x.dtype, device=x.device)
    return own.copy_(x)


def refuse_second_derivative() -> NoReturn:
    raise NotImplementedError(
        "ConvNeXt's fused stages have no second derivative (create_graph=True asked "
        "for one): set convnext_dense.block.Block.lean = False before the forward pass"
    )


def versions(given: Given) -> list[int]:
    """How often each parameter was changed in place.

    A stage's parameters are not saved for the backward pass one by one, which takes the
    host longer than the launches; they are only looked at.
    """
    return [p._version for p in given.parameters]


def check_versions(given: Given, before: list[int]) -> None:
    """Raise a RuntimeError if a parameter was changed since, as autograd does (which
    would let those pass whose values no gradient needs)."""
    if versions(given) != before:
        raise RuntimeError(
            "a parameter of ConvNeXt was changed in place between the forward and the "
            "backward pass (by an optimizer's step, for example): gradients would be "
            "wrong. Call backward() before you change parameters"
        )


def gradients(
    kind: StageKind,
    types: Types,
    grads: Tensor,
    parameters: Sequence[Tensor],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Each parameter's part of ``grads``, in its type and layout; None if not
    wanted."""
    if grads.dtype != types.parameters:
        grads = grads.to(types.parameters)
    views = list(torch._utils._unflatten_dense_tensors(grads, parameters))
    if kind.entrance != NONE:
        index = 0 if kind.entrance == STEM else 2
        weight, own = parameters[index], views[index]
        if not weight.is_contiguous():
            # that of downsampling is written in the weight's layout, the stem's is not
            if kind.entrance == STEM:
                own = own.contiguous(memory_format=torch.channels_last)
            else:
                own = own.as_strided(
                    weight.shape, weight.stride(), own.storage_offset()
                )
            views[index] = own
    if all(wanted):
        return views
    if 4 * sum(v.numel() for v, w in zip(views, wanted, strict=True) if w) < len(grads):
        # so that few small gradients do not keep all of ``grads``
        views = [v.clone() if w else v for v, w in zip(views, wanted, strict=True)]
    return [view if want else None for view, want in zip(views, wanted, strict=True)]
