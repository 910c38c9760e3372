"""The focal losses, through mmcv's functions, against their formula."""

import pytest
import torch
from mmcv.ops import SoftmaxFocalLoss, sigmoid_focal_loss, softmax_focal_loss

from ..helpers.op_references import random, same_with_gradients

TARGET = torch.tensor([0, 1, 2, 3, 4, 2, 0, -1])  # 4 and -1 are the background


def test_focal_loss():
    logits = torch.randn(20, 4, requires_grad=True)
    target = torch.randint(0, 5, (20,))  # 4 is background
    p = logits.double().sigmoid()
    truth = (target[:, None] == torch.arange(4)).double()
    pt = p * truth + (1 - p) * (1 - truth)
    alpha = 0.25 * truth + 0.75 * (1 - truth)
    expected = (-alpha * (1 - pt) ** 2 * pt.log()).sum() / 20
    actual = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "mean")
    assert actual.item() == pytest.approx(expected.item(), rel=1e-5)
    (expected_grad,) = torch.autograd.grad(expected, logits, retain_graph=True)
    (grad,) = torch.autograd.grad(actual, logits)
    assert torch.allclose(grad, expected_grad, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_sigmoid_focal_loss_with_class_weights(weighted, dtype):
    logits = random(8, 4).detach().to(dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    weights = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)
    truth = (TARGET[:, None] == torch.arange(4)).double()
    p = exact.sigmoid()
    pt, alpha = p * truth + (1 - p) * (1 - truth), 0.3 * truth + 0.7 * (1 - truth)
    expected = -alpha * (1 - pt) ** 1.5 * pt.log()
    if weighted:
        of_class = [weights[t] if 0 <= t < 4 else torch.tensor(1.0) for t in TARGET]
        expected = expected * torch.stack(of_class).double()[:, None]
    actual = sigmoid_focal_loss(
        logits, TARGET, 1.5, 0.3, weights.to(dtype) if weighted else None, "sum"
    )
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-2}[dtype]
    same_with_gradients(actual, expected.sum(), [logits], [exact], tolerance)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_softmax_focal_loss(weighted, gamma, dtype):
    logits = random(8, 4).detach().to(dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    weights = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)
    p = exact.softmax(1)
    known = [(row, c) for row, c in enumerate(TARGET.tolist()) if 0 <= c < 4]
    losses = [
        -0.3 * (1 - p[i]) ** gamma * p[i].log() * (weights[i[1]] if weighted else 1)
        for i in known
    ]
    actual = softmax_focal_loss(
        logits, TARGET, gamma, 0.3, weights.to(dtype) if weighted else None, "mean"
    )
    expected = torch.stack(losses).sum() / 8
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-2}[dtype]
    same_with_gradients(actual, expected, [logits], [exact], tolerance)


def test_no_rows():
    logits = torch.zeros(0, 4, requires_grad=True)
    for loss in sigmoid_focal_loss, softmax_focal_loss:
        total = loss(logits, TARGET[:0], 2.0, 0.25, None, "sum")
        total.backward()
        assert total == 0
    assert SoftmaxFocalLoss(2.0, 0.25)(torch.zeros(1, 4), TARGET[:1]) > 0
