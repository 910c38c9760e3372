"""On a GPU the stand-ins give what they give on the CPU: values and gradients."""

import mmcv.ops
import pytest
import torch

from convnext_dense import ops

from ..helpers.op_references import random

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

MAPS = random(2, 8, 12, 16, grad=False)
OFFSET, MASK = random(2, 18, 12, 16, grad=False), random(2, 9, 12, 16, grad=False)
WEIGHT = random(6, 8, 3, 3, grad=False)
ROIS = torch.tensor(
    [[0, 4.3, 8.1, 40.7, 55.2], [1, -9.0, -5.0, 20.0, 30.0], [1, 5.0, 5.0, 5.0, 5.0]],
    dtype=torch.float64,
)
ROTATED = torch.cat((ROIS, torch.tensor([[0.0], [0.7], [-2.0]])), 1).double()
LOGITS, CLASSES = random(8, 4, grad=False), torch.tensor([0, 1, 2, 3, 4, 2, 0, 4])
BORDERS = ROIS[:, 1:].expand(2, -1, -1) / 4

# What is differentiated comes first.
DIFFERENTIABLE = {
    "deform_conv2d": ((MAPS, OFFSET, WEIGHT), (1, 1)),
    "modulated_deform_conv2d": ((MAPS, OFFSET, MASK, WEIGHT), (None, 1, 1)),
    "carafe": ((MAPS, random(2, 18, 24, 32, grad=False)), (3, 2, 2)),
    "carafe_naive": ((MAPS, random(2, 18, 24, 32, grad=False)), (3, 2, 2)),
    "roi_pool": ((MAPS,), (ROIS, 3, 0.25)),
    "roi_align": ((MAPS,), (ROIS, 3, 0.25, 0, "avg", True)),
    "roi_align max": ((MAPS,), (ROIS, 3, 0.25, 0, "max", False)),
    "roi_align_rotated": ((MAPS,), (ROTATED, 3, 0.25, 0)),
    "border_align": ((MAPS,), (BORDERS, 4)),
    "sigmoid_focal_loss": ((LOGITS,), (CLASSES, 2.0, 0.25, torch.ones(4).double())),
    "softmax_focal_loss": ((LOGITS,), (CLASSES % 4, 2.0, 0.25)),
}


def on(device, values, dtype=None):
    return [
        v.to(device, dtype if v.is_floating_point() else None)
        if isinstance(v, torch.Tensor)
        else v
        for v in values
    ]


def value_and_gradients(function, inputs, others, device, dtype):
    leaves = [t.clone().requires_grad_() for t in on(device, inputs, dtype)]
    result = function(*leaves, *on(device, others, dtype))
    probe = random(result.numel(), seed=9, grad=False).view(result.shape)
    return result, *torch.autograd.grad(result, leaves, probe.to(result))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_values_and_gradients(name, dtype):
    function = getattr(mmcv.ops, name.split()[0])
    # mmcv differentiates carafe_naive on a GPU only.
    reference = mmcv.ops.carafe if name == "carafe_naive" else function
    inputs, others = DIFFERENTIABLE[name]
    actual = value_and_gradients(function, inputs, others, "cuda", dtype)
    expected = value_and_gradients(reference, inputs, others, "cpu", dtype)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-2
    for a, b in zip(actual, expected, strict=True):
        assert a.is_cuda
        assert torch.allclose(a.cpu(), b, tolerance, tolerance)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_deform_roi_pool(sampling_ratio):
    inputs = MAPS, random(3, 2, 3, 3, grad=False)

    def pool(maps, offset, rois):
        return mmcv.ops.deform_roi_pool(maps, rois, offset, 3, 0.25, sampling_ratio)

    actual, expected = (
        value_and_gradients(pool, inputs, (ROIS,), device, torch.float64)
        for device in ("cuda", "cpu")
    )
    for a, b in zip(actual, expected, strict=True):
        assert torch.allclose(a.cpu(), b, 1e-10, 1e-10)


@pytest.mark.parametrize("kind", ["collect", "distribute"])
def test_psa_mask(kind):
    module = mmcv.ops.PSAMask(kind, (5, 7))
    inputs = (random(2, 35, 6, 5, grad=False),)
    actual, expected = (
        value_and_gradients(module, inputs, (), device, torch.float32)
        for device in ("cuda", "cpu")
    )
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a.cpu(), b)


def test_masked_conv():
    module = mmcv.ops.MaskedConv2d(8, 6, 3, padding=1).double()
    mask = random(1, 12, 16, grad=False) > 0
    with torch.no_grad():
        expected = module(MAPS[:1], mask)
        actual = module.cuda()(MAPS[:1].cuda(), mask.cuda())
    assert torch.allclose(actual.cpu(), expected)


def test_overlaps_and_nms():
    boxes = random(60, 5, grad=False)
    boxes[:, :2] *= 4
    boxes[:, 2:4] = boxes[:, 2:4].abs() * 8 + 1
    scores = random(60, seed=1, grad=False)
    upright = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:4]), 1)
    lanes = torch.zeros(60, 77, dtype=torch.float64)
    lanes[:, 2], lanes[:, 4], lanes[:, 5:] = 0.1, 30, boxes[:, :1] * 9
    quads = torch.stack((upright[:, [0, 2, 2, 0]], upright[:, [1, 1, 3, 3]]), 2)
    for function, values in (
        (mmcv.ops.bbox_overlaps, (upright, upright)),
        (mmcv.ops.box_iou_rotated, (boxes, boxes)),
        (mmcv.ops.box_iou_quadri, (quads.flatten(1), quads.flatten(1))),
        (mmcv.ops.nms, (upright, scores, 0.3)),
        (mmcv.ops.soft_nms, (upright.float(), scores.float().sigmoid())),
        (mmcv.ops.nms_rotated, (boxes, scores, 0.3, torch.arange(60.0) % 3)),
        (mmcv.ops.nms_quadri, (quads.flatten(1), scores, 0.3)),
        (ops.line_nms_forward, (lanes, scores, 5.0, 9)),
    ):
        actual, expected = function(*on("cuda", values)), function(*values)
        if isinstance(actual, torch.Tensor):
            actual, expected = [actual], [expected]
        for a, b in zip(actual, expected, strict=True):
            assert torch.allclose(a.cpu(), b)
