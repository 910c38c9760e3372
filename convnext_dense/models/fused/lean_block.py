"""The block's two passes on a CPU, keeping little and passing over memory once.

The mathematics is that of ``block.py``. A chain of its modules keeps about twelve
times the block's input for the backward pass; here two tensors stay, the input and
what GELU is given (four times as wide), and the rest is made again:

- the depthwise convolution and its norm, from the block's input;
- GELU, from its input, a piece at a time;
- layer scale and drop path's factor, f, are folded into the second pointwise layer,
  so what they multiply never exists. With E = (gradient of the output)^T (input of
  the layer), the gradient of its weight W is f E, and that of f the sum over each
  row of E W;
- GRN scales the channels of an image by s: s too is made again.

The pointwise layers see rows (M, C), M = N H W, which in the channels_last memory
format are views of the maps. The widened rows (M, 4C) go through in pieces that stay
in cache.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from . import depthwise, gelu

GRN_EPS = 1e-6
_PIECE = 2**21  # elements of a widened piece: 8 MB of fp32, a share of the last cache
_LARGE_PIECE = 2**24
_MIN_ROWS = 1024  # fewer are slower to multiply


class Weights(NamedTuple):
    """A block's parameters, with the shapes they have in ``block.Block``."""

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
    scale: float,
    work: torch.dtype,
    hidden: Tensor | None = None,
) -> Tensor:
    """``x`` plus ``scale`` times the branch.

    Args:
        x: (N, C, H, W) in channels_last, as the result, whose type is
            ``out_type``.
        weights: the block's parameters.
        eps: of the norm.
        scale: drop path's factor.
        work: the type to compute products in.
        hidden: filled with what GELU is given, (M, 4C), if there.
    """
    rows = _rows(x)
    normed = _normed(x, weights, eps, work)[0]
    w1, b1, w2, b2 = (t.to(work) for t in weights[4:8])
    if weights.grn_beta is not None:  # W (s a + beta) = W (s a) + W beta
        b2 = torch.addmv(b2, w2, weights.grn_beta.to(work))
    factor = _factor(weights, scale)
    # To fold passes over the weight, (C, 4C); not to, over the rows, (M, C).
    fold = factor is not None and len(rows) > w2.shape[1]
    if fold:
        w2 = (weights.w2 * factor[:, None]).to(work)
        b2 = (b2 * factor).to(work)
    out = torch.empty_like(rows, dtype=out_type(x, weights.gamma))
    # The last product adds to the residual; not in half precision, where the bias and
    # the residual would be rounded to each other first.
    adds = out.dtype == work and work in (torch.float32, torch.float64)
    adds &= fold or factor is None
    # Products in half precision want many rows; GELU's input, if kept, wants the cache.
    few = hidden is None and work in (torch.bfloat16, torch.float16)
    pieces = _pieces(x, weights, _LARGE_PIECE if few else _PIECE)
    room = _room(pieces, rows, len(b1), work)
    for piece in pieces:
        inside = rows[piece]
        wide = room[: len(inside)]
        same = hidden is not None and hidden.dtype == work
        before = hidden[piece] if same else wide
        torch.addmm(b1, normed[piece], w1.t(), out=before)
        if hidden is not None and not same:
            hidden[piece] = before
        gelu.forward(before, wide)
        if weights.grn_gamma is not None:
            images = _images(wide, x)
            images *= _grn_scale(_strength(images), weights.grn_gamma)[:, None]
        if adds:
            torch.add(inside, b2, out=out[piece]).addmm_(wide, w2.t())
            continue
        inside, branch = inside.to(out.dtype), torch.addmm(b2, wide, w2.t())
        if factor is None or fold:
            torch.add(inside, branch, out=out[piece])
        else:
            branch, own = branch.to(out.dtype), factor.to(out.dtype)
            torch.addcmul(inside, branch, own, out=out[piece])
    return _maps(out, x)


def backward(
    grad: Tensor,
    x: Tensor,
    hidden: Tensor | None,
    weights: Weights,
    eps: float,
    scale: float,
    work: torch.dtype,
    wanted: list[bool],
) -> list[Tensor | None]:
    """Gradients of ``x`` and of the weights, in that order; None where not wanted.

    Args:
        grad: (N, C, H, W), the gradient of the output.
        x: the input, (N, C, H, W) in channels_last, in any type.
        hidden: what GELU was given, (M, 4C), or None to compute it again.
        wanted: for ``x`` and each of the weights.
    """
    of_x, of = wanted[0], Weights(*wanted[1:])
    of_norm_input = of_x or of.dw_weight or of.dw_bias
    of_normed = of_norm_input or of.norm_weight or of.norm_bias
    of_wide = of_normed or of.w1 or of.b1 or of.grn_gamma or of.grn_beta
    of_second = of.w2 or of.gamma

    x = x.to(depthwise.working_type(work))
    grad = grad.contiguous(memory_format=torch.channels_last)
    outer = _rows(grad).to(work)
    if of_normed or of.w1 or hidden is None:
        normed, norm_input, *statistics = _normed(x, weights, eps, work)
    w1, b1, w2 = (t.to(work) for t in weights[4:7])
    factor = _factor(weights, scale)
    grn = weights.grn_gamma

    # Sums over the pieces, wider than half precision; E of the module's docstring.
    along = grad_w1 = grad_b1 = grad_grn_gamma = grad_grn_beta = None
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
            along = _add_product(along, outside.t(), wide, exact)
        if of.b1:
            grad_b1 = _sum(grad_b1, of_b1)
        if of.w1:
            grad_w1 = _add_product(grad_w1, inner.t(), normed[piece], exact)
        if of_normed:
            torch.mm(inner, w1, out=grad_normed[piece])

    grads = {
        "w1": grad_w1,
        "b1": grad_b1,
        "grn_gamma": grad_grn_gamma,
        "grn_beta": grad_grn_beta,
    }
    if of_second or of.b2:
        summed = outer.sum(0, dtype=exact)
        grads["b2"] = summed if factor is None else summed * factor
    if of_second:
        if weights.grn_beta is not None:
            along.addr_(summed, weights.grn_beta.to(exact))
        if of.gamma:
            of_factor = torch.linalg.vecdot(along, weights.w2.to(exact))
            of_factor += summed * weights.b2
            grads["gamma"] = of_factor * scale
        grads["w2"] = along if factor is None else along.mul_(factor[:, None])
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
            grads["dw_weight"] = depthwise.weight_gradient(x, grad_maps)
    grad_x = None
    if of_x:
        grad_x = depthwise.input_gradient(grad_maps, weights.dw_weight.to(x.dtype))
        grad_x = grad_x.add_(grad) if grad_x.dtype == grad.dtype else grad_x + grad
    return [
        grad_x,
        *(
            grads[name].to(weight.dtype) if want else None
            for (name, weight), want in zip(weights._asdict().items(), of, strict=True)
        ),
    ]


def out_type(x: Tensor, gamma: Tensor | None) -> torch.dtype:
    """The type of ``x`` plus the branch: layer scale's, where it is the wider."""
    return x.dtype if gamma is None else torch.promote_types(x.dtype, gamma.dtype)


def _rows(maps: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last -> (M, C), a view."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """(M, C) -> (N, C, H, W) of ``like``'s size in channels_last, a view."""
    n, c, h, w = like.shape
    return rows.view(n, h, w, c).permute(0, 3, 1, 2)


def _images(rows: Tensor, like: Tensor) -> Tensor:
    """Rows of whole images of ``like``'s size -> (images, H W, channels), a view."""
    size = like.shape[2] * like.shape[3]
    return rows.view(len(rows) // size, size, rows.shape[1])


def _pieces(x: Tensor, weights: Weights, elements: int) -> list[slice]:
    """The rows in pieces, the first the largest; whole images where GRN sums them."""
    n, c, h, w = x.shape
    size = max(elements // (4 * c), _MIN_ROWS)
    if weights.grn_gamma is not None:
        size = max(size // (h * w), 1) * h * w
    return [slice(start, start + size) for start in range(0, max(n * h * w, 1), size)]


def _room(pieces: list[slice], like: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Memory for the largest piece."""
    return like.new_empty(min(pieces[0].stop, len(like)), width, dtype=dtype)


def _factor(weights: Weights, scale: float) -> Tensor | None:
    """Layer scale times drop path's factor, (C); None if that is 1."""
    if weights.gamma is not None:
        return weights.gamma if scale == 1 else weights.gamma * scale
    return None if scale == 1 else torch.full_like(weights.b2, scale)


def _sum(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total.add_(part)


def _add_product(
    total: Tensor | None, a: Tensor, b: Tensor, dtype: torch.dtype
) -> Tensor:
    """``total`` plus a b, in ``dtype``; ``total`` is used up."""
    if total is None:
        return (a @ b).to(dtype)
    return total.addmm_(a, b) if dtype == a.dtype else total.add_(a @ b)


def _normed(
    x: Tensor, weights: Weights, eps: float, work: torch.dtype
) -> tuple[Tensor, ...]:
    """What ``depthwise.convolution_norm`` returns, of these weights; the normed rows
    in the type ``work``."""
    x = x.to(depthwise.working_type(work))
    normed, *others = depthwise.convolution_norm(
        x,
        weights.dw_weight.to(x.dtype),
        weights.dw_bias.to(x.dtype),
        weights.norm_weight,
        weights.norm_bias,
        eps,
    )
    return normed.to(work), *others


def _norm_backward(grad, rows, statistics, weights, wanted):
    """Gradients of the norm's input (M, C), weight and bias."""
    kind = weights.norm_weight.dtype
    of_input, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
        grad.to(kind),
        rows.to(kind),
        rows.shape[1:],
        *statistics,
        weights.norm_weight,
        weights.norm_bias,
        wanted,
    )
    return of_input, of_weight, of_bias


def _strength(images: Tensor) -> Tensor:
    """L2 norm of every channel over each image: (images, H W, C) -> (images, C)."""
    return torch.linalg.vector_norm(
        images, dim=1, dtype=torch.promote_types(images.dtype, torch.float32)
    )


def _grn_scale(strength: Tensor, gamma: Tensor) -> Tensor:
    """What GRN multiplies by: 1 + gamma strength / mean strength."""
    return 1 + gamma * strength / (strength.mean(1, keepdim=True) + GRN_EPS)


def _grn_backward_(grad: Tensor, x: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """GRN without its bias, back and forth: ``grad`` becomes the gradient of ``x``,
    and ``x`` what GRN makes of it. Both (images, H W, C).

    Returns:
        gradients of GRN's ``gamma`` and ``beta``, (C) each.
    """
    strength = _strength(x)
    mean = strength.mean(1, keepdim=True) + GRN_EPS
    response = strength / mean
    scale = 1 + gamma * response
    of_beta = grad.sum((0, 1), dtype=strength.dtype)
    of_scale = torch.linalg.vecdot(grad, x, dim=1).to(strength.dtype)  # (images, C)
    of_response = of_scale * gamma
    # The mean is of all channels: each one's strength lowers the others' response.
    lowered = (of_response * response).mean(1, keepdim=True)
    slope = (of_response - lowered) / mean
    slope = torch.where(strength > 0, slope / strength, 0)  # a norm has no slope at 0
    grad *= scale[:, None]
    grad += x * slope[:, None]
    x *= scale[:, None]
    return (of_scale * response).sum(0), of_beta
