"""The block's forward and backward pass on a CPU, with little kept between them.

The mathematics is that of ``block.py``. Its chain of modules keeps about twelve times
the block's input for the backward pass. The lean block keeps two tensors: the block's
input and GELU's input, which is four times as wide. The backward pass computes the
rest again:

- the depthwise convolution and its norm, from the block's input;
- GELU, from its input, piece by piece;
- GRN's scale of each channel of an image.

Layer scale and drop path's factor, together f, are folded into the second pointwise
layer, so that its unscaled output is never stored. With E = (gradient of the block's
output)^T (input of the layer), the gradient of the layer's weight W is f E. The
gradient of f is the sum over each row of E W, elementwise.

The pointwise layers work on rows (M, C), M = N H W. In the channels_last memory format
the rows are views of the maps. The hidden rows (M, 4C) are computed in pieces that stay
in cache.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from . import depthwise, gelu

GRN_EPS = 1e-6
_PIECE = 2**21  # elements of a piece of hidden rows: 8 MB of fp32, to stay in cache
_LARGE_PIECE = 2**24
_MIN_ROWS = 1024  # products of fewer rows are slower


class Needed(NamedTuple):
    """Which gradients the backward pass computes, field by field as in ``Weights``."""

    dw_weight: bool
    dw_bias: bool
    norm_weight: bool
    norm_bias: bool
    w1: bool
    b1: bool
    w2: bool
    b2: bool
    gamma: bool
    grn_gamma: bool
    grn_beta: bool


class Weights(NamedTuple):
    """A block's parameters, in the shapes of ``block.Block``.

    ``dw_*`` belong to the depthwise convolution, ``w1`` and ``b1`` to the first
    pointwise layer, ``w2`` and ``b2`` to the second. ``gamma`` is layer scale.
    """

    dw_weight: Tensor
    dw_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    gamma: Tensor | None
    grn_gamma: Tensor | None
    grn_beta: Tensor | None


def forward(
    x: Tensor,
    weights: Weights,
    eps: float,
    dilation: int,
    scale: float,
    work: torch.dtype,
    hidden: Tensor | None = None,
) -> Tensor:
    """Compute ``x`` plus ``scale`` times the branch.

    Args:
        x: (N, C, H, W) in channels_last.
        weights: the block's parameters.
        eps: the norm adds it to each variance.
        dilation: of the depthwise convolution.
        scale: drop path's factor.
        work: the type in which products are computed.
        hidden: receives GELU's input, (M, 4C); None to keep nothing.

    Returns:
        the block's output, (N, C, H, W) in channels_last, in the type ``out_type``.
    """
    rows = _rows(x)
    normed = _normed(x, weights, eps, dilation, work)[0]
    w1, b1, w2, b2 = (t.to(work) for t in weights[4:8])
    if weights.grn_beta is not None:  # W (s a + beta) = W (s a) + W beta
        b2 = torch.addmv(b2, w2, weights.grn_beta.to(work))
    factor = _factor(weights, scale)
    # Folding the factor multiplies the weight, (C, 4C); not folding it multiplies the
    # rows, (M, C). The smaller of the two is multiplied.
    if factor is not None and len(rows) > w2.shape[1]:
        w2 = (weights.w2 * factor[:, None]).to(work)
        b2 = (b2 * factor).to(work)
        factor = None
    out = torch.empty_like(rows, dtype=out_type(x, weights.gamma))
    # The last product adds to the residual in place. In half precision it may not: the
    # sum of bias and residual would be rounded first.
    wide_work = work in (torch.float32, torch.float64)
    in_place = out.dtype == work and wide_work and factor is None
    # Products in half precision are faster with many rows. Small pieces are faster
    # where GELU's input is kept: it is read again from the cache.
    large = hidden is None and work in (torch.bfloat16, torch.float16)
    pieces = _pieces(x, weights, _LARGE_PIECE if large else _PIECE)
    room = _room(pieces, rows, len(b1), work)
    for piece in pieces:
        inside = rows[piece]
        wide = room[: len(inside)]
        if hidden is not None and hidden.dtype == work:
            before = hidden[piece]
            torch.addmm(b1, normed[piece], w1.t(), out=before)
        else:
            before = torch.addmm(b1, normed[piece], w1.t(), out=wide)
            if hidden is not None:
                hidden[piece] = before
        gelu.forward(before, wide)
        if weights.grn_gamma is not None:
            images = _images(wide, x)
            images *= _grn_scale(_strength(images), weights.grn_gamma)[:, None]
        if in_place:
            torch.add(inside, b2, out=out[piece]).addmm_(wide, w2.t())
            continue
        inside, branch = inside.to(out.dtype), torch.addmm(b2, wide, w2.t())
        if factor is None:
            torch.add(inside, branch, out=out[piece])
        else:
            branch = branch.to(out.dtype)
            torch.addcmul(inside, branch, factor.to(out.dtype), out=out[piece])
    return _maps(out, x)


def backward(
    grad: Tensor,
    x: Tensor,
    hidden: Tensor | None,
    weights: Weights,
    eps: float,
    dilation: int,
    scale: float,
    work: torch.dtype,
    needed: list[bool],
) -> list[Tensor | None]:
    """Compute the gradients of ``x`` and of the weights.

    Args:
        grad: the gradient of the output, (N, C, H, W).
        x: the block's input, (N, C, H, W) in channels_last, in any type.
        hidden: GELU's input, (M, 4C), or None to compute it again.
        weights: the block's parameters.
        eps: the norm adds it to each variance.
        dilation: of the depthwise convolution.
        scale: drop path's factor.
        work: the type in which products are computed.
        needed: whether ``x`` and each of the weights, in that order, needs a gradient.

    Returns:
        the gradients of ``x`` and of the weights, in that order; None where not needed.
    """
    of_x, of = needed[0], Needed(*needed[1:])
    of_norm_input = of_x or of.dw_weight or of.dw_bias
    of_normed = of_norm_input or of.norm_weight or of.norm_bias
    of_wide = of_normed or of.w1 or of.b1 or of.grn_gamma or of.grn_beta
    of_second = of.w2 or of.gamma

    x = x.to(depthwise.working_type(work))
    grad = grad.contiguous(memory_format=torch.channels_last)
    outer = _rows(grad).to(work)
    if of_normed or of.w1 or hidden is None:
        normed, norm_input, *statistics = _normed(x, weights, eps, dilation, work)
    w1, b1, w2 = (t.to(work) for t in weights[4:7])
    factor = _factor(weights, scale)
    grn = weights.grn_gamma

    # Sums over the pieces, in fp32 or wider. ``grad_unscaled`` is E of the module's
    # docstring.
    grad_unscaled: Tensor | None = None
    grad_w1 = grad_b1 = grad_grn_gamma = grad_grn_beta = None
    exact = torch.promote_types(work, torch.float32)
    grad_normed = torch.empty_like(outer)
    pieces = _pieces(x, weights, _PIECE)
    room, inner_room = (_room(pieces, outer, len(b1), work) for _ in range(2))
    for piece in pieces if of_wide or of_second else ():
        outside = outer[piece]
        wide, inner = room[: len(outside)], inner_room[: len(outside)]
        if hidden is None:
            before = torch.addmm(b1, normed[piece], w1.t())
        else:
            before = hidden[piece].to(work)
        if of_wide:
            scaled = outside if factor is None else outside * factor.to(work)
            torch.mm(scaled, w2, out=inner)
        if of_wide and grn is None:
            of_b1 = gelu.backward_(before, wide, inner)
        else:
            gelu.forward(before, wide)
        if grn is not None:
            activated, images = _images(wide, x), _images(inner, x)
            of_gamma, of_beta = _grn_backward_(images, activated, grn)
            grad_grn_gamma = _sum(grad_grn_gamma, of_gamma)
            grad_grn_beta = _sum(grad_grn_beta, of_beta)
            of_b1 = gelu.gradient_(before, inner)
        if of_second:
            grad_unscaled = _add_product(grad_unscaled, outside.t(), wide, exact)
        if of.b1:
            grad_b1 = _sum(grad_b1, of_b1)
        if of.w1:
            grad_w1 = _add_product(grad_w1, inner.t(), normed[piece], exact)
        if of_normed:
            torch.mm(inner, w1, out=grad_normed[piece])

    grads: dict[str, Tensor | None] = {
        "w1": grad_w1,
        "b1": grad_b1,
        "grn_gamma": grad_grn_gamma,
        "grn_beta": grad_grn_beta,
    }
    if of_second or of.b2:
        summed = outer.sum(0, dtype=exact)
        grads["b2"] = summed if factor is None else summed * factor
    if grad_unscaled is not None:
        if weights.grn_beta is not None:
            grad_unscaled.addr_(summed, weights.grn_beta.to(exact))
        if of.gamma:
            of_factor = torch.linalg.vecdot(grad_unscaled, weights.w2.to(exact))
            of_factor += summed * weights.b2
            grads["gamma"] = of_factor * scale
        grads["w2"] = grad_unscaled
        if factor is not None:
            grad_unscaled.mul_(factor[:, None])
    if of_normed:
        grad_maps, grads["norm_weight"], grads["norm_bias"] = _norm_backward(
            grad_normed,
            norm_input,
            statistics,
            weights,
            [of_norm_input, of.norm_weight, of.norm_bias],
        )
    if of_norm_input:
        grads["dw_bias"] = grad_maps.sum(0, dtype=exact)
        grad_maps = _maps(grad_maps.to(x.dtype), x)
        if of.dw_weight:
            grads["dw_weight"] = depthwise.weight_gradient(x, grad_maps, dilation)
    grad_x = None
    if of_x:
        dw_weight = weights.dw_weight.to(x.dtype)
        grad_x = depthwise.input_gradient(grad_maps, dw_weight, dilation)
        grad_x = grad_x.add_(grad) if grad_x.dtype == grad.dtype else grad_x + grad
    results = [grad_x]
    for (name, weight), is_needed in zip(weights._asdict().items(), of, strict=True):
        of_weight = grads[name] if is_needed else None
        results.append(None if of_weight is None else of_weight.to(weight.dtype))
    return results


def out_type(x: Tensor, gamma: Tensor | None) -> torch.dtype:
    """The type of the block's output: the wider of ``x``'s and layer scale's."""
    return x.dtype if gamma is None else torch.promote_types(x.dtype, gamma.dtype)


def _rows(maps: Tensor) -> Tensor:
    """View maps (N, C, H, W) in channels_last as rows (M, C)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """View rows (M, C) as maps (N, C, H, W) of ``like``'s size in channels_last."""
    n, c, h, w = like.shape
    return rows.view(n, h, w, c).permute(0, 3, 1, 2)


def _images(rows: Tensor, like: Tensor) -> Tensor:
    """View the rows of whole images of ``like``'s size as (images, H W, channels)."""
    size = like.shape[2] * like.shape[3]
    return rows.view(len(rows) // size, size, rows.shape[1])


def _pieces(x: Tensor, weights: Weights, elements: int) -> list[slice]:
    """Split the rows into pieces, the first the largest.

    With GRN a piece has whole images, because GRN sums over an image.
    """
    n, c, h, w = x.shape
    size = max(elements // (4 * c), _MIN_ROWS)
    if weights.grn_gamma is not None:
        size = max(size // (h * w), 1) * h * w
    return [slice(start, start + size) for start in range(0, max(n * h * w, 1), size)]


def _room(pieces: list[slice], like: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Unset memory for the largest piece, (rows of a piece, ``width``)."""
    return like.new_empty(min(pieces[0].stop, len(like)), width, dtype=dtype)


def _factor(weights: Weights, scale: float) -> Tensor | None:
    """Layer scale times drop path's factor, (C); None if there is neither."""
    if weights.gamma is not None:
        return weights.gamma if scale == 1 else weights.gamma * scale
    return None if scale == 1 else torch.full_like(weights.b2, scale)


def _sum(total: Tensor | None, summand: Tensor) -> Tensor:
    """Add ``summand`` to ``total`` in place; None counts as 0."""
    return summand if total is None else total.add_(summand)


def _add_product(
    total: Tensor | None, a: Tensor, b: Tensor, dtype: torch.dtype
) -> Tensor:
    """Add the product a b, in ``dtype``, to ``total`` in place; None counts as 0."""
    if total is None:
        return (a @ b).to(dtype)
    return total.addmm_(a, b) if dtype == a.dtype else total.add_(a @ b)


def _normed(
    x: Tensor, weights: Weights, eps: float, dilation: int, work: torch.dtype
) -> tuple[Tensor, ...]:
    """Call ``depthwise.convolution_norm``; the normed rows are in the type ``work``."""
    x = x.to(depthwise.working_type(work))
    normed, *others = depthwise.convolution_norm(
        x,
        weights.dw_weight.to(x.dtype),
        weights.dw_bias.to(x.dtype),
        weights.norm_weight,
        weights.norm_bias,
        eps,
        dilation,
    )
    return normed.to(work), *others


def _norm_backward(
    grad: Tensor,
    rows: Tensor,
    statistics: list[Tensor],
    weights: Weights,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the norm's input, (M, C), weight and bias, (C) each.

    Args:
        grad: the gradient of the normed rows, (M, C).
        rows: the norm's input, (M, C).
        statistics: mean and reciprocal standard deviation of each row, (M, 1).
        weights: the block's parameters.
        needed: which of the three gradients are computed.
    """
    dtype = weights.norm_weight.dtype
    of_input, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
        grad.to(dtype),
        rows.to(dtype),
        rows.shape[1:],
        *statistics,
        weights.norm_weight,
        weights.norm_bias,
        needed,
    )
    return of_input, of_weight, of_bias


def _strength(images: Tensor) -> Tensor:
    """The L2 norm of each channel over an image: (images, H W, C) -> (images, C)."""
    return torch.linalg.vector_norm(
        images, dim=1, dtype=torch.promote_types(images.dtype, torch.float32)
    )


def _grn_scale(strength: Tensor, gamma: Tensor) -> Tensor:
    """GRN's factor of each channel, 1 + gamma strength / mean strength, (images, C)."""
    return 1 + gamma * strength / (strength.mean(1, keepdim=True) + GRN_EPS)


def _grn_backward_(grad: Tensor, x: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Compute GRN's gradients, and its output without the bias again.

    Args:
        grad: the gradient of GRN's output, (images, H W, C); becomes that of ``x``.
        x: GRN's input, (images, H W, C); becomes GRN's output without ``beta``.
        gamma: GRN's weight, (C).

    Returns:
        the gradients of GRN's ``gamma`` and ``beta``, (C) each.
    """
    strength = _strength(x)
    mean = strength.mean(1, keepdim=True) + GRN_EPS
    response = strength / mean
    scale = 1 + gamma * response
    of_beta = grad.sum((0, 1), dtype=strength.dtype)
    of_scale = torch.linalg.vecdot(grad, x, dim=1).to(strength.dtype)  # (images, C)
    of_response = of_scale * gamma
    # The mean is over all channels: the strength of one lowers the others' response.
    lowered = (of_response * response).mean(1, keepdim=True)
    slope = (of_response - lowered) / mean
    # The slope of a norm at 0 is taken as 0.
    slope = torch.where(strength > 0, slope / strength, 0)
    grad *= scale[:, None]
    grad += x * slope[:, None]
    x *= scale[:, None]
    return (of_scale * response).sum(0), of_beta
