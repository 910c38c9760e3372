"""A stage as one autograd function."""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from .description import NONE, STEM, Shape, StageSpec, Types
from .stage import Stage, as_map
from .stage_arguments import StageArguments


def apply_stage(
    stage: Stage, shape: Shape, x: Tensor, arguments: StageArguments
) -> tuple[Tensor, Tensor | None]:
    """Compute a stage, with a backward pass if one is needed.

    Returns:
        The residual stream and the normed map, (N, C, H, W) each; None for the normed
        map if the stage has no norm.

    Raises:
        NotImplementedError: in the backward pass, with ``create_graph=True``.
    """
    if needs_backward(x, arguments.parameters):
        return _Stage.apply(stage, shape, arguments, x, *arguments.parameters)
    return stage.forward(x, arguments, shape, False)[:2]


def needs_backward(x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Whether autograd records this call."""
    return torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in parameters)
    )


class _Stage(torch.autograd.Function):
    """``Stage.forward`` and ``Stage.backward`` as an autograd function."""

    @staticmethod
    def forward(ctx, stage, shape, arguments, x, *_):
        """The stream and the normed map; the parameters come again in ``_``."""
        out, normed, kept = stage.forward(x, arguments, shape, True)
        # Only the output norm's backward pass reads the stream again.
        ctx.save_for_backward(x, None if normed is None else out, kept)
        ctx.stage, ctx.shape = stage, shape
        ctx.arguments, ctx.versions = arguments, versions(arguments)
        ctx.set_materialize_grads(False)
        return out, normed

    @staticmethod
    def backward(ctx, g, g_normed):
        """The gradients of x and of the parameters."""
        if torch.is_grad_enabled():
            refuse_second_derivative()
        stage, shape, arguments = ctx.stage, ctx.shape, ctx.arguments
        x, out, kept = ctx.saved_tensors
        x, out = restore_layout(x, shape), as_map(out, stage.types.stream)
        if g is None and g_normed is None:
            return (None,) * (4 + len(arguments.parameters))
        check_versions(arguments, ctx.versions)
        # FSDP has gathered the parameters again, at other addresses.
        arguments = StageArguments.of(arguments.parameters, arguments.drop)
        requires_grad = ctx.needs_input_grad[3:]
        dx, grads = stage.backward(
            x, out, kept, arguments, shape, requires_grad, g, g_normed
        )
        views = gradients(
            stage.spec, stage.types, grads, arguments.parameters, requires_grad[1:]
        )
        return None, None, None, dx, *views


def restore_layout(x: Tensor, shape: Shape) -> Tensor:
    """A stage's saved input in the layout that it had in the forward pass.

    Hooks that move saved tensors to the CPU and back, such as
    ``torch.autograd.graph.save_on_cpu``, may change the layout.
    """
    if not shape.strides:
        return as_map(x, x.dtype)
    if x.stride() == shape.strides:
        return x
    copy = torch.empty_strided(x.shape, shape.strides, dtype=x.dtype, device=x.device)
    return copy.copy_(x)


def refuse_second_derivative() -> NoReturn:
    """Raise the NotImplementedError for a backward pass that is itself recorded."""
    raise NotImplementedError(
        "ConvNeXt's fused stages have no second derivative (create_graph=True asked "
        "for one): before the forward pass, set lean=False on the backbone, or "
        "convnext_dense.models.block.Block.lean = False for all"
    )


def versions(arguments: StageArguments) -> list[int]:
    """The version counter of each parameter: how often it was changed in place.

    ``save_for_backward`` would check this too, but saving each parameter takes the host
    longer than the launches.
    """
    return [p._version for p in arguments.parameters]


def check_versions(arguments: StageArguments, before: list[int]) -> None:
    """Check that no parameter was changed in place since the forward pass.

    Autograd has the same check, but only for values that some gradient needs.

    Raises:
        RuntimeError: a parameter was changed.
    """
    if versions(arguments) != before:
        raise RuntimeError(
            "a parameter of ConvNeXt was changed in place between the forward and the "
            "backward pass (by an optimizer's step, for example): gradients would be "
            "wrong. Call backward() before you change parameters"
        )


def gradients(
    spec: StageSpec,
    types: Types,
    grads: Tensor,
    parameters: Sequence[Tensor],
    requires_grad: Sequence[bool],
) -> list[Tensor | None]:
    """The gradient of each parameter, in its type and layout, as views of ``grads``.

    Args:
        spec, types: of the stage.
        grads: the gradients of all parameters, as ``Stage.backward`` returns them.
        parameters: of the stage.
        requires_grad: of each parameter; the result is None where it is False.
    """
    if grads.dtype != types.parameters:
        grads = grads.to(types.parameters)
    views = list(torch._utils._unflatten_dense_tensors(grads, parameters))
    if spec.entrance != NONE:
        index = spec.entrance_weight
        weight, view = parameters[index], views[index]
        if not weight.is_contiguous():
            # The downsample kernel writes the gradient in the weight's layout, the
            # stem's kernel in the contiguous one.
            if spec.entrance == STEM:
                view = view.contiguous(memory_format=torch.channels_last)
            else:
                view = view.as_strided(
                    weight.shape, weight.stride(), view.storage_offset()
                )
            views[index] = view
    if all(requires_grad):
        return views
    if 4 * sum(v.numel() for v, w in zip(views, requires_grad, strict=True) if w) < len(
        grads
    ):
        # Few small gradients should not keep all of ``grads`` in memory.
        views = [
            v.clone() if w else v for v, w in zip(views, requires_grad, strict=True)
        ]
    return [
        view if want else None for view, want in zip(views, requires_grad, strict=True)
    ]
