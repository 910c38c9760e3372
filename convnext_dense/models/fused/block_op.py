"""The lean block as an autograd function, and as an operator for ``torch.compile``.

Without the operator, ``torch.compile`` would trace the lean block and keep for the
backward pass the tensors that the lean block computes again.
"""

import torch
from torch import Tensor

from . import lean_block
from .lean_block import Weights
from .precision import precision_of


def apply_block(
    x: Tensor,
    weights: Weights,
    eps: float,
    drop_path_rate: float = 0.0,
    keep_hidden: bool = True,
    dilation: int = 1,
) -> Tensor:
    """Compute ``x`` plus the block's branch.

    Drop path leaves the branch out for some images; nothing is computed or kept for
    them.

    Args:
        x: (N, C, H, W).
        weights: the block's parameters.
        eps: the norm adds it to each variance.
        drop_path_rate: the probability that an image's branch is left out.
        keep_hidden: keep GELU's input for the backward pass. If False only ``x`` is
            kept, and the rest is computed again (gradient checkpointing).
        dilation: of the depthwise convolution.

    Returns:
        the block's output, (N, C, H, W) in channels_last.

    Raises:
        NotImplementedError: in the backward pass, with ``create_graph=True``.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    kept, work = precision_of(x)
    mask, scale = None, 1.0
    if drop_path_rate > 0:
        # Drawn on the CPU, which needs the number of images: so it need not wait for
        # a device.
        mask = torch.rand(len(x), device="cpu") >= drop_path_rate
        scale = 1 / (1 - drop_path_rate)
    differentiable = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, *weights)
    )
    if torch.compiler.is_compiling():
        keep = kept if keep_hidden and differentiable else None
        return _operator(x, mask, eps, scale, work, keep, *weights, dilation)[0]
    if differentiable:
        keep = kept if keep_hidden else None
        settings = eps, dilation, scale, work
        return _LeanBlock.apply(x, mask, settings, keep, kept, *weights)
    return _forward(x, mask, weights, eps, dilation, scale, work, None)[1]


class _LeanBlock(torch.autograd.Function):
    """The lean block outside ``torch.compile``: it keeps what ``lean_block`` names."""

    @staticmethod
    def forward(ctx, x, mask, settings, keep, kept, *weights):
        images = len(x) if mask is None else int(mask.sum())
        hidden = None if keep is None else _hidden(x, images, keep)
        remaining, out = _forward(x, mask, Weights(*weights), *settings, hidden)
        ctx.save_for_backward(remaining.to(kept), hidden, mask, *weights)
        ctx.settings = settings
        return out

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "ConvNeXt's lean block has no second derivative (create_graph=True "
                "asked for one): before the forward pass, set lean=False on the "
                "backbone, or convnext_dense.models.block.Block.lean = False for all"
            )
        remaining, hidden, mask, *weights = ctx.saved_tensors
        needed = [ctx.needs_input_grad[0], *ctx.needs_input_grad[5:]]
        of_x, *of_weights = _backward(
            grad, remaining, mask, hidden, Weights(*weights), *ctx.settings, needed
        )
        return of_x, *(None,) * 4, *of_weights


def _hidden(x: Tensor, images: int, dtype: torch.dtype) -> Tensor:
    """Unset memory for GELU's input of ``images`` images, (M, 4C)."""
    _, c, h, w = x.shape
    return x.new_empty(images * h * w, 4 * c, dtype=dtype)


def _forward(
    x: Tensor,
    mask: Tensor | None,
    weights: Weights,
    eps: float,
    dilation: int,
    scale: float,
    work: torch.dtype,
    hidden: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The images whose branch is computed, and the output of all images.

    Args:
        mask: (N), whether drop path leaves an image its branch; None if every one
            has it. The other arguments are those of ``lean_block.forward``.
    """
    remaining = x if mask is None else _take(x, mask)
    with torch.autocast(x.device.type, enabled=False):
        out = lean_block.forward(remaining, weights, eps, dilation, scale, work, hidden)
    return remaining, out if mask is None else _put(x, mask, out)


def _backward(
    grad: Tensor,
    remaining: Tensor,
    mask: Tensor | None,
    hidden: Tensor | None,
    weights: Weights,
    eps: float,
    dilation: int,
    scale: float,
    work: torch.dtype,
    needed: list[bool],
) -> list[Tensor | None]:
    """The gradients of all images and of the weights, None where not needed.

    Args:
        grad: the gradient of the output of all images, (N, C, H, W).
        remaining: the images whose branch was computed.
        mask: as for ``_forward``. The other arguments are those of
            ``lean_block.backward``.
    """
    grad = grad.contiguous(memory_format=torch.channels_last)
    grad_remaining = grad if mask is None else _take(grad, mask)
    with torch.autocast(grad.device.type, enabled=False):
        of_x, *of_weights = lean_block.backward(
            grad_remaining,
            remaining,
            hidden,
            weights,
            eps,
            dilation,
            scale,
            work,
            needed,
        )
    if mask is not None and of_x is not None:
        of_x = _put(grad, mask, of_x)
    return [of_x, *of_weights]


def _take(x: Tensor, mask: Tensor) -> Tensor:
    """The images of ``x`` where ``mask`` is True, in channels_last."""
    indices = mask.nonzero()[:, 0].to(x.device, non_blocking=True)
    return x.permute(0, 2, 3, 1).index_select(0, indices).permute(0, 3, 1, 2)


def _put(x: Tensor, mask: Tensor, images: Tensor) -> Tensor:
    """A copy of ``x`` with ``images`` where ``mask`` is True."""
    indices = mask.nonzero()[:, 0].to(x.device, non_blocking=True)
    return x.to(images.dtype, copy=True).index_copy_(0, indices, images)


# For torch.compile: one operator for the forward pass and one for the backward pass.
# Their shapes must not depend on how many images keep their branch, so the hidden rows
# have room for all images.


@torch.library.custom_op("convnext_dense::lean_block", mutates_args=())
def _operator(
    x: Tensor,
    mask: Tensor | None,
    eps: float,
    scale: float,
    work: torch.dtype,
    keep: torch.dtype | None,
    dw_weight: Tensor,
    dw_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    gamma: Tensor | None,
    grn_gamma: Tensor | None,
    grn_beta: Tensor | None,
    dilation: int = 1,
) -> tuple[Tensor, Tensor]:
    """The forward pass: the output, and GELU's input, which is empty if not kept.

    Args:
        keep: the type in which GELU's input is kept; None to keep nothing. The other
            arguments are those of ``_forward``.
    """
    weights = Weights(
        dw_weight,
        dw_bias,
        norm_weight,
        norm_bias,
        w1,
        b1,
        w2,
        b2,
        gamma,
        grn_gamma,
        grn_beta,
    )
    hidden = _hidden(x, 0, x.dtype) if keep is None else _hidden(x, len(x), keep)
    # A compiler may hand over any memory format.
    x = x.contiguous(memory_format=torch.channels_last)
    rows = None if keep is None else hidden[: _count_rows(x, mask)]
    out = _forward(x, mask, weights, eps, dilation, scale, work, rows)[1]
    return out, hidden


@_operator.register_fake
def _(x, mask, eps, scale, work, keep, *weights_and_dilation):
    weights = weights_and_dilation[: len(Weights._fields)]
    hidden = _hidden(x, 0, x.dtype) if keep is None else _hidden(x, len(x), keep)
    dtype = lean_block.out_type(x, Weights(*weights).gamma)
    return torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last), hidden


@torch.library.custom_op("convnext_dense::lean_block_backward", mutates_args=())
def _operator_backward(
    grad: Tensor,
    x: Tensor,
    mask: Tensor | None,
    hidden: Tensor,
    eps: float,
    scale: float,
    work: torch.dtype,
    needed: list[bool],
    dw_weight: Tensor,
    dw_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    gamma: Tensor | None,
    grn_gamma: Tensor | None,
    grn_beta: Tensor | None,
    dilation: int = 1,
) -> list[Tensor]:
    """The backward pass: the gradients that are needed, without gaps.

    Args:
        hidden: GELU's input as ``_operator`` returns it; the other arguments are those
            of ``_backward``, with all images as ``x``.
    """
    weights = Weights(
        dw_weight,
        dw_bias,
        norm_weight,
        norm_bias,
        w1,
        b1,
        w2,
        b2,
        gamma,
        grn_gamma,
        grn_beta,
    )
    x = x.contiguous(memory_format=torch.channels_last)
    remaining = x if mask is None else _take(x, mask)
    rows = hidden[: _count_rows(x, mask)] if len(hidden) else None
    grads = _backward(
        grad, remaining, mask, rows, weights, eps, dilation, scale, work, needed
    )
    return [
        of_input.to(like.dtype)
        for of_input, like in zip(grads, (x, *weights), strict=True)
        if of_input is not None and like is not None
    ]


@_operator_backward.register_fake
def _(grad, x, mask, hidden, eps, scale, work, needed, *weights_and_dilation):
    weights = weights_and_dilation[: len(Weights._fields)]
    of_x, *of_weights = needed
    grads = [torch.empty_like(x, memory_format=torch.channels_last)] if of_x else []
    return grads + [
        torch.empty_like(weight)
        for weight, is_needed in zip(weights, of_weights, strict=True)
        if is_needed
    ]


def _count_rows(x: Tensor, mask: Tensor | None) -> int:
    """The rows of the images whose branch is computed."""
    images = len(x) if mask is None else int(mask.sum())
    return images * x.shape[2] * x.shape[3]


def _setup_context(ctx, inputs, output) -> None:
    """Keep for the backward pass what ``_operator_backward`` takes."""
    x, mask, eps, scale, work, _, *weights, dilation = inputs
    ctx.save_for_backward(x, mask, output[1], *weights)
    ctx.settings = eps, scale, work
    ctx.dilation = dilation


def _operator_gradient(ctx, grad, _):
    """The gradient of each argument of ``_operator``, None for those without one."""
    x, mask, hidden, *weights = ctx.saved_tensors
    of_weights = slice(6, 6 + len(weights))
    needed = [ctx.needs_input_grad[0], *ctx.needs_input_grad[of_weights]]
    arguments = x, mask, hidden, *ctx.settings, needed, *weights, ctx.dilation
    grads = iter(_operator_backward(grad, *arguments))
    of_x, *others = [next(grads) if is_needed else None for is_needed in needed]
    return of_x, *(None,) * 5, *others, None


_operator.register_autograd(_operator_gradient, setup_context=_setup_context)
