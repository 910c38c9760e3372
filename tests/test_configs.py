"""The configs say what the recipes say, and build in both toolboxes."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from .conftest import ROOT

CONFIGS = sorted(ROOT.glob("configs/*/*_convnext_*.py"))


def load(name):
    return Config.fromfile(ROOT / "configs" / name)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_builds_alone(path):
    """From the file itself, as a downstream tool would: no runtime of ours."""
    cfg = Config.fromfile(path)
    assert cfg.custom_imports.imports == ["convnext_dense"]
    assert not any("::" in base for base in cfg.get("_base_", []))
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert type(model.backbone).__module__ == "convnext_dense.backbone"
    heads = cfg.model.get("neck") or cfg.model.decode_head
    assert list(heads.in_channels) == [i.channels for i in model.backbone.feature_info]


def assert_backbone_and_optimizer(cfg, lr, decay_type, decay_rate):
    """What the two T recipes share, and where they differ."""
    backbone, wrapper = cfg.model.backbone, cfg.optim_wrapper
    assert (backbone.arch, backbone.drop_path_rate) == ("tiny", 0.4)
    assert backbone.layer_scale_init_value == 1.0
    assert backbone.init_cfg.checkpoint.endswith("/convnext_tiny_1k_224.pth")
    assert (wrapper.type, wrapper.loss_scale) == ("AmpOptimWrapper", "dynamic")
    assert wrapper.optimizer == dict(
        type="AdamW", lr=lr, betas=(0.9, 0.999), weight_decay=0.05
    )
    assert wrapper.paramwise_cfg == dict(
        decay_type=decay_type, decay_rate=decay_rate, num_layers=6
    )
    assert (
        cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16
    )


def test_cascade_t_is_the_recipe():
    cfg = load("det/cascade_mask_rcnn_convnext_t_coco.py")
    assert_backbone_and_optimizer(cfg, 2e-4, "layer_wise", 0.7)
    assert cfg.train_cfg.max_epochs == 36
    warmup, steps = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end, warmup.by_epoch) == (0.001, 500, False)
    assert (steps.milestones, steps.gamma) == ([27, 33], 0.1)
    assert (
        cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16
    )

    heads = cfg.model.roi_head.bbox_head
    assert [h.bbox_coder.target_stds[0] for h in heads] == [0.1, 0.05, 0.033]
    for head in heads:
        assert (head.type, head.num_shared_convs, head.num_shared_fcs) == (
            "ConvFCBBoxHead",
            4,
            1,
        )
        assert head.norm_cfg.type == "SyncBN"
        assert head.loss_bbox == dict(type="GIoULoss", loss_weight=10.0)
        assert head.reg_decoded_bbox
        assert not head.reg_class_agnostic

    *_, choice, _ = cfg.train_dataloader.dataset.pipeline
    resize, crop = choice.transforms
    scales = [(side, 1333) for side in range(480, 801, 32)]
    assert resize[0].scales == crop[2].scales == scales
    assert crop[0].scales == [(400, 1333), (500, 1333), (600, 1333)]
    assert (crop[1].crop_type, crop[1].crop_size) == ("absolute_range", (384, 600))
    assert crop[1].allow_negative_crop
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (1333, 800)


def test_cascade_t_has_the_papers_parameters():
    cfg = load("det/cascade_mask_rcnn_convnext_t_coco.py")
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 86  # table 3


def test_upernet_t_is_the_recipe():
    cfg = load("seg/upernet_convnext_t_ade20k.py")
    assert_backbone_and_optimizer(cfg, 1e-4, "stage_wise", 0.9)
    assert cfg.train_cfg.max_iters == 160000
    warmup, poly = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end, warmup.by_epoch) == (1e-6, 1500, False)
    assert (poly.power, poly.eta_min, poly.begin, poly.end) == (1.0, 0.0, 1500, 160000)
    assert (
        cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16
    )

    head, aux = cfg.model.decode_head, cfg.model.auxiliary_head
    assert (head.type, head.channels, head.norm_cfg.type) == ("UPerHead", 512, "SyncBN")
    assert (aux.type, aux.in_index, aux.loss_decode.loss_weight) == ("FCNHead", 2, 0.4)
    assert cfg.model.test_cfg == dict(
        mode="slide", crop_size=(512, 512), stride=(341, 341)
    )
    scales, flips, *_ = cfg.tta_pipeline[-1].transforms
    ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert [s.scale for s in scales] == [(int(2048 * r), int(512 * r)) for r in ratios]
    assert [f.prob for f in flips] == [0.0, 1.0]


def test_upernet_t_has_the_papers_parameters():
    cfg = load("seg/upernet_convnext_t_ade20k.py")
    with DefaultScope.overwrite_default_scope("mmseg"), torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 60  # table 4
