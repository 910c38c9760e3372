"""The focal loss, from torchvision."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the focal loss (arXiv 1708.02002, equation 5) into ``output``.

    Shapes: logits (N, C), classes (N,) where class C is the background -> (N, C).
    mmdet calls this op on a GPU only, and never with class weights.

    Raises:
        NotImplementedError: there are class weights.
    """
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


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
    with torch.enable_grad():
        logits = input.detach().requires_grad_()
        loss = _focal_loss(logits, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, logits)[0])


def _focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    """The focal loss of each logit (N, C), in fp32."""
    if weight.numel():
        raise NotImplementedError(
            "mmcv's sigmoid_focal_loss with class weights has no stand-in in "
            "convnext_dense. Leave out the weights, or install an mmcv with compiled "
            "ops"
        )
    classes = logits.shape[1]
    truth = F.one_hot(target, classes + 1)[:, :classes]
    return sigmoid_focal_loss(logits.float(), truth.float(), alpha, gamma)
