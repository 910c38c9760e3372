"""Configs train two steps of real samples, and predict an image.

CI does it for a config of each method, with small models; ``make test-configs`` for
every config at its own size.
"""

import os
from importlib.util import find_spec

import pytest
import torch

from ..helpers.config_steps import train_steps
from ..helpers.panoptic import use_double_of_panopticapi, write_panoptic
from ..helpers.paths import ROOT, SHARED

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the samples are not here")

ATTO = [40, 80, 160, 320]
# Options of a small model, by method. They change what takes time, not how it trains.
DINO = [
    "model.backbone.arch=atto",
    f"model.neck.in_channels={ATTO[1:]}",
    "model.num_queries=20",
    "model.encoder.num_layers=1",
    "model.decoder.num_layers=2",
    "model.dn_cfg.group_cfg.num_dn_queries=10",
]
MASK2FORMER = [
    "model.backbone.arch=atto",
    f"model.panoptic_head.in_channels={ATTO}",
    "model.panoptic_head.num_queries=20",
    "model.panoptic_head.pixel_decoder.encoder.num_layers=1",
    "model.panoptic_head.transformer_decoder.num_layers=2",
    "model.train_cfg.num_points=200",
]
RTMDET = [
    "model.backbone.arch=atto",
    f"model.neck.in_channels={ATTO[1:]}",
    "model.neck.norm_cfg.num_groups=8",
]
METHODS = {
    "dino_4scale_convnext_t_dinov3_frozen_coco": DINO,
    "mask2former_convnext_t_coco_panoptic": MASK2FORMER,
    "rtmdet_l_convnext_b_in22k_coco": RTMDET,
}
# Options of a model at its own size, by the first word of a config's name.
RPN = [
    "model.train_cfg.rpn_proposal.max_per_img=50",
    "model.test_cfg.rpn.max_per_img=50",
]
FULL = {
    "dino": ["model.num_queries=100"],  # small images have fewer positions than 900
    "mask": [*RPN, "model.train_cfg.rcnn.sampler.num=32"],
    "cascade": [*RPN, *(f"model.train_cfg.rcnn.{n}.sampler.num=32" for n in range(3))],
}
# By the first word of a config's name.
LOSSES = {
    "dino": {"loss_cls", "loss_bbox", "loss_iou", "dn_loss_cls", "enc_loss_cls"},
    "mask2former": {"loss_cls", "loss_mask", "loss_dice", "d0.loss_mask"},
    "rtmdet": {"loss_cls", "loss_bbox"},
    "mask": {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"},
    "cascade": {"loss_rpn_cls", "s0.loss_cls", "s2.loss_bbox", "s2.loss_mask"},
}
# Of the largest strides: small images have no object for them.
IDLE = (
    *("bbox_head.reg_convs.2", "bbox_head.rtm_reg.2"),
    *("neck.fpn_convs.2", "neck.fpn_convs.3"),
)


@pytest.fixture
def samples(request, tmp_path, monkeypatch):
    """The data root for a config, whose name is a parameter of the test."""
    data = SHARED / "data/coco_tiny"
    if not request.node.callspec.params["name"].endswith("panoptic"):
        return data
    for split in ("train2017", "val2017"):
        write_panoptic(data, tmp_path / "coco", split)
    if find_spec("panopticapi") is None:
        use_double_of_panopticapi(monkeypatch)
    return tmp_path / "coco"


def check(name, steps):
    """Check losses, parameters and the prediction of a config's two steps."""
    assert len(steps.losses) == 2
    for losses in steps.losses:
        assert LOSSES[name.partition("_")[0]] <= losses.keys()
        assert all(torch.isfinite(torch.tensor(value)) for value in losses.values())
    frozen = {
        parameter
        for parameter in steps.trained | steps.constant
        if parameter.startswith(("backbone.stages", "backbone.downsample_layers"))
    }
    assert steps.frozen == (frozen if "_frozen_" in name else set())
    idle = steps.constant - steps.frozen
    assert all(parameter.startswith(IDLE) for parameter in idle), idle
    (sample,) = steps.predictions
    boxes = sample.pred_instances.bboxes
    assert boxes.isfinite().all()
    if "panoptic" in name:
        assert sample.pred_panoptic_seg.sem_seg.shape[-2:] == sample.ori_shape


@pytest.mark.parametrize("name", METHODS)
def test_a_config_of_each_method(name, samples, tmp_path):
    check(name, train_steps(name, tmp_path / "run", samples, METHODS[name], side=64))


@pytest.mark.skipif(
    "CONVNEXT_DENSE_EVERY_CONFIG" not in os.environ,
    reason="takes an hour and 10 GB: make test-configs",
)
@pytest.mark.parametrize(
    "name",
    [
        path.stem
        for path in sorted(ROOT.glob("configs/det/*_coco*.py"))
        # They train as the configs they inherit from.
        if not path.stem.endswith(("_fsdp", "_coco_o"))
    ],
)
def test_every_detection_config(name, samples, tmp_path):
    options = FULL.get(name.partition("_")[0], [])
    steps = train_steps(name, tmp_path / "run", samples, options, side=128)
    print(name, *(f"{losses['loss']:.2f}" for losses in steps.losses))
    check(name, steps)
