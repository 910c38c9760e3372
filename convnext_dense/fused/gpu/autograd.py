"""A stage as PyTorch's autograd sees it: one function, forwards and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .description import NONE, STEM, StageKind, Types
from .stage import Stage


def apply_stage(
    stage: Stage,
    x: Tensor,
    parameters: Sequence[Tensor],
    drop: Tensor | None,
    normed: torch.dtype | None,
) -> tuple[Tensor, Tensor | None]:
    """The stage's stream and normed map, (N, C, H, W) each; the latter None if
    ``normed``, its type, is.

    Raises:
        NotImplementedError: in the backward pass, with ``create_graph=True``.
    """
    if torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in parameters)
    ):
        return _Stage.apply(stage, x, drop, normed, *parameters)
    shape = stage.shape_of(x, drop, normed)
    return stage.forward(x, parameters, drop, shape, False)[:2]


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(ctx, stage, x, drop, normed, *parameters):
        shape = stage.shape_of(x, drop, normed)
        out, map_, kept = stage.forward(x, parameters, drop, shape, True)
        # the output norm alone needs the stream again
        stream = None if map_ is None else out
        ctx.save_for_backward(x, stream, kept, drop, *parameters)
        ctx.stage, ctx.shape = stage, shape
        ctx.set_materialize_grads(False)
        return out, map_

    @staticmethod
    def backward(ctx, g, g_normed):
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "ConvNeXt's fused stages have no second derivative (create_graph=True "
                "asked for one): set convnext_dense.block.Block.lean = False before "
                "the forward pass"
            )
        x, out, kept, drop, *parameters = ctx.saved_tensors
        if g is None and g_normed is None:
            return (None,) * (4 + len(parameters))
        stage = ctx.stage
        wanted = (ctx.needs_input_grad[1], *ctx.needs_input_grad[4:])
        dx, grads = stage.backward(
            x, out, kept, drop, parameters, ctx.shape, wanted, g, g_normed
        )
        views = gradients(stage.kind, stage.types, grads, parameters, wanted[1:])
        return None, dx, None, None, *views


def gradients(
    kind: StageKind,
    types: Types,
    grads: Tensor,
    parameters: Sequence[Tensor],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Each parameter's part of ``grads``, in its type and layout; None if not wanted."""
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
    return [view if want else None for view, want in zip(views, wanted, strict=True)]
