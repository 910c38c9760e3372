"""The focal loss (arXiv 1708.02002, equation 5), over sigmoids and over softmax."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import at_least_fp32


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the focal loss of each class into ``output``.

    Shapes: logits (N, C), classes (N,), class weights (C,) or empty -> (N, C). A class
    outside 0 to C - 1 is the background, with the weight 1: the compiled op reads
    beyond the weights there. mmdet calls this op on a GPU only.
    """
    output.copy_(_per_logit(_absent_loss, 1, input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the gradient of each loss with respect to its logit into ``grad_input``
    (N, C)."""
    grad_input.copy_(_per_logit(_absent_slope, -1, input, target, weight, gamma, alpha))


def _per_logit(
    absent: Callable[[Tensor, float], Tensor],
    sign: int,
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    gamma: float,
    alpha: float,
) -> Tensor:
    """The focal loss of each logit (N, C), or its slope, in fp32 or fp64.

    All classes but one of a row are absent, so one function of the logits is enough.
    The loss of the class that is present is that of an absent class with the opposite
    logit. A table of the classes (N, C) would take several times the memory.

    Args:
        absent: the loss or the slope of absent classes, before the factor of ``alpha``.
        sign: of ``absent`` at the opposite logit.
    """
    (logits,) = at_least_fp32(logits)
    result = absent(logits, gamma).mul_(1 - alpha)
    known = ((target >= 0) & (target < logits.shape[1]))[:, None]
    index = target[:, None].where(known, 0)
    present = absent(-logits.gather(1, index), gamma).mul_(sign * alpha)
    result.scatter_(1, index, present.where(known, result.gather(1, index)))
    if weight.numel():
        result.mul_(_class_weights(target, weight)[:, None])
    return result


def _absent_loss(logits: Tensor, gamma: float) -> Tensor:
    """``-p**gamma * log(1 - p)`` with ``p = sigmoid(logits)``."""
    return F.softplus(logits, threshold=40).mul_(logits.sigmoid().pow_(gamma))


def _absent_slope(logits: Tensor, gamma: float) -> Tensor:
    """The derivative of ``_absent_loss``."""
    p = logits.sigmoid()
    slope = F.softplus(logits, threshold=40).mul_(1 - p).mul_(gamma).add_(p)
    return slope.mul_(p.pow_(gamma))


def softmax_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the focal loss of each row into ``output``.

    Shapes: probabilities (N, C), classes (N,), class weights (C,) or empty -> (N,). The
    loss of a class outside 0 to C - 1 is zero.
    """
    probability, known = _true_class(input, target)
    log = probability.clamp(min=torch.finfo(torch.float32).tiny).log()
    loss = -alpha * (1 - probability) ** gamma * log
    if weight.numel():
        loss = loss * _class_weights(target, weight)
    output.copy_(loss.where(known, 0))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the gradient of each row's loss with respect to its logits into
    ``grad_input`` (N, C). ``buff`` has no use here."""
    probability, known = _true_class(input, target)
    log = probability.clamp(min=torch.finfo(torch.float32).tiny).log()
    rest = 1 - probability
    inner = gamma * rest ** (gamma - 1) * probability * log if gamma else 0
    slope = alpha * (inner - rest**gamma)  # by the true class's logit
    if weight.numel():
        slope = slope * _class_weights(target, weight)
    classes = torch.arange(input.shape[1], device=input.device)
    truth = (target[:, None] == classes).to(slope.dtype)
    grad_input.copy_(slope.where(known, 0)[:, None] * (truth - input))


def _true_class(probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of each row's class (N,), and whether there is such a class."""
    (probabilities,) = at_least_fp32(probabilities)
    known = (target >= 0) & (target < probabilities.shape[1])
    index = target.where(known, 0)[:, None]
    return probabilities.gather(1, index)[:, 0], known


def _class_weights(target: Tensor, weight: Tensor) -> Tensor:
    """The weight of each row's class (N,), 1 for the background."""
    known = (target >= 0) & (target < len(weight))
    return weight[target.where(known, 0)].where(known, 1)
