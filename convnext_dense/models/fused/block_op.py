"""The lean block as PyTorch sees it: an autograd function; and an operator for
``torch.compile``, which would otherwise look into it and keep what it leaves."""

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
) -> Tensor:
    """``x`` plus the block's branch, which drop path leaves out for some images.

    Nothing is computed or kept for an image without its branch.

    Args:
        x: (N, C, H, W).
        weights: the block's parameters.
        eps: of the norm.
        drop_path_rate: the probability that an image goes without the branch.
        keep_hidden: keep the input of GELU for the backward pass; else only ``x``
            is kept, and all else computed again (gradient checkpointing).

    Raises:
        NotImplementedError: in the backward pass, with ``create_graph=True``.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    kept, work = precision_of(x)
    mask, scale = None, 1.0
    if drop_path_rate > 0:
        # Drawn on the CPU, where the number of images is needed: a device need not
        # be waited for.
        mask = torch.rand(len(x), device="cpu") >= drop_path_rate
        scale = 1 / (1 - drop_path_rate)
    differentiable = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, *weights)
    )
    if torch.compiler.is_compiling():
        keep = kept if keep_hidden and differentiable else None
        return _operator(x, mask, eps, scale, work, keep, *weights)[0]
    if differentiable:
        keep = kept if keep_hidden else None
        return _LeanBlock.apply(x, mask, eps, scale, work, keep, kept, *weights)
    return _forward(x, mask, weights, eps, scale, work, None)[1]


class _LeanBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, mask, eps, scale, work, keep, kept, *weights):
        images = len(x) if mask is None else int(mask.sum())
        hidden = None if keep is None else _hidden(x, images, keep)
        part, out = _forward(x, mask, Weights(*weights), eps, scale, work, hidden)
        ctx.save_for_backward(part.to(kept), hidden, mask, *weights)
        ctx.settings = eps, scale, work
        return out

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "ConvNeXt's lean block has no second derivative (create_graph=True "
                "asked for one): set convnext_dense.block.Block.lean = False before "
                "the forward pass"
            )
        part, hidden, mask, *weights = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[7:]]
        of_x, *of_weights = _backward(
            grad, part, mask, hidden, Weights(*weights), *ctx.settings, wanted
        )
        return of_x, *(None,) * 6, *of_weights


def _hidden(x: Tensor, images: int, dtype: torch.dtype) -> Tensor:
    """Room for what GELU is given: (M, 4C)."""
    _, c, h, w = x.shape
    return x.new_empty(images * h * w, 4 * c, dtype=dtype)


def _forward(x, mask, weights, eps, scale, work, hidden):
    """The images that have a branch, and the output of all."""
    part = x if mask is None else _take(x, mask)
    with torch.autocast(x.device.type, enabled=False):
        out = lean_block.forward(part, weights, eps, scale, work, hidden)
    return part, out if mask is None else _put(x, mask, out)


def _backward(grad, part, mask, hidden, weights, eps, scale, work, wanted):
    """Gradients of the input and of the weights, None where not wanted."""
    grad = grad.contiguous(memory_format=torch.channels_last)
    part_grad = grad if mask is None else _take(grad, mask)
    with torch.autocast(grad.device.type, enabled=False):
        of_part, *of_weights = lean_block.backward(
            part_grad, part, hidden, weights, eps, scale, work, wanted
        )
    if mask is not None and of_part is not None:
        of_part = _put(grad, mask, of_part)
    return of_part, *of_weights


def _take(x: Tensor, mask: Tensor) -> Tensor:
    """The images of ``x`` that ``mask`` names, in channels_last."""
    named = mask.nonzero()[:, 0].to(x.device, non_blocking=True)
    return x.permute(0, 2, 3, 1).index_select(0, named).permute(0, 3, 1, 2)


def _put(x: Tensor, mask: Tensor, images: Tensor) -> Tensor:
    """A copy of ``x`` with ``images`` where ``mask`` says."""
    named = mask.nonzero()[:, 0].to(x.device, non_blocking=True)
    return x.to(images.dtype, copy=True).index_copy_(0, named, images)


# torch.compile: one operator forwards and one back. Their shapes may not depend on
# how many images drop path leaves, so the hidden rows have room for all of them.


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
) -> tuple[Tensor, Tensor]:
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
    x = x.contiguous(memory_format=torch.channels_last)  # not what a compiler promises
    part = None if keep is None else hidden[: _rows(x, mask)]
    return _forward(x, mask, weights, eps, scale, work, part)[1], hidden


@_operator.register_fake
def _(x, mask, eps, scale, work, keep, *weights):
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
    wanted: list[bool],
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
) -> list[Tensor]:
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
    part = x if mask is None else _take(x, mask)
    rows = hidden[: _rows(x, mask)] if len(hidden) else None
    grads = _backward(grad, part, mask, rows, weights, eps, scale, work, wanted)
    likes = x, *weights
    return [g.to(t.dtype) for g, t in zip(grads, likes, strict=True) if g is not None]


@_operator_backward.register_fake
def _(grad, x, mask, hidden, eps, scale, work, wanted, *weights):
    of_x, *of_weights = wanted
    grads = [torch.empty_like(x, memory_format=torch.channels_last)] if of_x else []
    return grads + [
        torch.empty_like(weight)
        for weight, want in zip(weights, of_weights, strict=True)
        if want
    ]


def _rows(x: Tensor, mask: Tensor | None) -> int:
    images = len(x) if mask is None else int(mask.sum())
    return images * x.shape[2] * x.shape[3]


def _setup_context(ctx, inputs, output):
    x, mask, eps, scale, work, _, *weights = inputs
    ctx.save_for_backward(x, mask, output[1], *weights)
    ctx.settings = eps, scale, work


def _operator_gradient(ctx, grad, _):
    x, mask, hidden, *weights = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[6:]]
    grads = iter(
        _operator_backward(grad, x, mask, hidden, *ctx.settings, wanted, *weights)
    )
    given = [next(grads) if want else None for want in wanted]
    return given[0], *(None,) * 5, *given[1:]


_operator.register_autograd(_operator_gradient, setup_context=_setup_context)
