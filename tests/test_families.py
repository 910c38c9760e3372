"""Model families of mmdet and mmseg with ConvNeXt: one of each kind trains.

``make families`` runs all of them.
"""

import os
import time

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.utils import ManagerMixin

from .helpers.mmengine_state import forget_instances
from .programs.families import fitting, step, table, workers
from .programs.families.catalogue import CONFIGS, LEFT_OUT, Family, families
from .programs.families.shrinking import small_model

# One of each kind: RoI heads with other ops, deformable convolutions, anchor points,
# queries, masks, a YOLO, and heads for segmentation with other ops.
QUICK = (
    "mmdet/carafe",
    "mmdet/dcn+dpool",
    "mmdet/reppoints",
    "mmdet/yolox",
    "mmdet/fcos",
    "mmdet/deformable_detr",
    "mmdet/solov2",
    "mmseg/pspnet",
    "mmseg/psanet",
    "mmseg/ccnet",
    "mmseg/point_rend",
    "mmseg/mask2former",
)


@pytest.fixture(scope="module")
def by_name() -> dict[str, Family]:
    workers.import_toolboxes()
    return {family.name: family for family in families()}


@pytest.mark.parametrize("name", QUICK)
def test_family_trains_on_convnext(name, by_name, tmp_path):
    family = by_name[name]
    torch.manual_seed(0)
    config = small_model(family, tmp_path)
    try:
        model, backbone = step.build(family, config, with_convnext=True)
        loss, gradients = step.train(model, backbone, step.batch(family, config, 2))
        assert loss > 0
        assert gradients > 0.5
        assert "pred_" in step.predict(model, step.batch(family, config, 1))
    finally:
        forget_instances(ManagerMixin)


def test_names_of_the_lists_are_families(by_name):
    assert set(LEFT_OUT) <= set(by_name)
    assert all(
        family.config.name == CONFIGS[name]
        for name, family in by_name.items()
        if name in CONFIGS
    )
    assert all(family.config.exists() for family in by_name.values())


def test_channels_follow_the_maps():
    model = ConfigDict(
        backbone=dict(type="mmdet.ResNet", depth=18, out_indices=(1, 2, 3)),
        neck=dict(type="YOLOV3Neck", in_channels=[512, 256, 128], out_channels=[512]),
        bbox_head=dict(type="YOLOV3Head", in_channels=[512, 256, 128]),
    )
    fitted = fitting.with_convnext(model, 64)
    assert fitted.backbone.out_indices == [1, 2, 3]
    assert fitted.neck == dict(
        type="YOLOV3Neck", in_channels=[320, 160, 80], out_channels=[512]
    )
    assert fitted.bbox_head.in_channels == [512, 256, 128]  # of the neck


def test_heads_take_the_maps_of_their_index():
    model = ConfigDict(
        backbone=dict(type="mmdet.ResNet", depth=18, out_indices=(0, 1, 2, 3)),
        decode_head=dict(type="ASPPHead", in_channels=512, in_index=3, channels=512),
        auxiliary_head=[dict(in_channels=[64, 256], in_index=[0, 2], channels=64)],
    )
    fitted = fitting.with_convnext(model, 64)
    assert fitted.decode_head.in_channels == 320
    assert fitted.decode_head.channels == 512
    assert fitted.auxiliary_head[0].in_channels == [40, 160]


def test_a_model_without_maps_cannot_be_fitted():
    with pytest.raises(fitting.CannotFit, match="hourglasses"):
        fitting.with_convnext(
            ConfigDict(backbone=dict(type="HourglassNet"), bbox_head={}), 64
        )


def test_a_crash_and_a_hang_end_one_run(by_name, monkeypatch):
    def run(family, with_convnext, device):
        if with_convnext:
            time.sleep(60)
        os._exit(7)

    monkeypatch.setattr(workers, "run", run)
    family = by_name["mmdet/yolox"]
    jobs = [workers.Job(family, False), workers.Job(family, True)]
    ended = dict(workers.run_all(jobs, 1, "cpu", timeout=1, limit=50))
    assert ended[jobs[0]].reason == "the process ended: 7"
    assert ended[jobs[1]].reason == "not ended after 1 s"
    late = list(workers.run_all(jobs, 1, "cpu", timeout=1, limit=0))
    assert [result.reason for _, result in late] == ["not run: 0 s were over"] * 2


def test_table_names_what_fails(by_name):
    works, fails = step.Result(True), step.Result(False, "the package | x")
    rows = [
        table.Row(by_name["mmdet/yolox"], works, works),
        table.Row(by_name["mmdet/ssd"], works, fails),
        table.Row(by_name["mmdet/reid"]),
    ]
    sweep = table.as_json(rows, "cpu", 1.0)
    assert table.failures(sweep).splitlines()[2:] == [
        "| mmdet/ssd | trains | the package / x |",
        f"| mmdet/reid | left out: {LEFT_OUT['mmdet/reid']} | |",
    ]
    assert table.summary(sweep) == (
        "mmdet: 2 models, 2 train as shipped, 1 with ConvNeXt; 1 left out"
    )
