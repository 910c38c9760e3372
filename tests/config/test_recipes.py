"""Every row of the paper's COCO and ADE20K tables has the authors' recipe.

Configs of detectors that others published have theirs.
"""

import json

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from convnext_dense.config.options import load_config, use_tta
from convnext_dense.engine.build import build_layer_decay, build_model
from convnext_dense.models.archs import ARCHS

from ..helpers.decay_facts import FACTS, expected_layer, is_decayed
from ..helpers.paths import ROOT, SHARED

RECIPES = json.loads((ROOT / "tests/data/recipes.json").read_text())
DET, SEG = RECIPES["detection"], RECIPES["segmentation"]
ALL = DET | SEG
BEYOND = RECIPES["beyond"]


def load(name):
    return load_config(next(ROOT.glob(f"configs/*/{name}.py")))


@pytest.fixture(params=ALL)
def row(request):
    """A recipe and its config."""
    return ALL[request.param], load(request.param)


@pytest.mark.parametrize("name", ALL)
def test_is_short(name):
    (file,) = ROOT.glob(f"configs/*/{name}.py")
    assert len(file.read_text().splitlines()) <= 25


def test_backbone(row):
    recipe, cfg = row
    backbone = cfg.model.backbone
    weights = RECIPES["weights"][f"{recipe['arch']}_{recipe['pretrain']}"]
    assert backbone == dict(
        type="ConvNeXt",
        arch=recipe["arch"],
        drop_path_rate=recipe["drop_path_rate"],
        layer_scale_init_value=1.0,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type="Pretrained", checkpoint=weights),
    )
    channels = list(ARCHS[recipe["arch"]].channels)
    if "neck" in cfg.model:
        assert cfg.model.neck.in_channels == channels
    else:
        assert cfg.model.decode_head.in_channels == channels
        assert cfg.model.auxiliary_head.in_channels == channels[2]


def test_optimizer(row):
    recipe, cfg = row
    mixed = dict(type="AmpOptimWrapper", loss_scale="dynamic")
    assert cfg.optim_wrapper == dict(
        **(mixed if recipe["amp"] else dict(type="OptimWrapper")),
        optimizer=dict(
            type="AdamW", lr=recipe["lr"], betas=(0.9, 0.999), weight_decay=0.05
        ),
        constructor="LayerDecayOptimWrapperConstructor",
        paramwise_cfg={
            key: recipe[key] for key in ("decay_type", "decay_rate", "num_layers")
        },
    )
    assert (
        cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16
    )


def test_layer_decay_parameter_by_parameter(row):
    """Compare the groups of the config's model with values of the authors' code."""
    recipe, cfg = row
    facts = FACTS["recipes"][recipe["layer_decay"]]
    groups = {}
    for group in build_layer_decay(cfg):
        for name in group["param_names"]:
            assert name not in groups
            groups[name] = group
    count = 0
    for name, group in groups.items():
        layers = [*facts["layers"].values()]
        if name.startswith("backbone."):
            layer, scale = expected_layer(name, facts["layers"])
            decayed = is_decayed(name)
            count += 1
        else:
            layer, scale = recipe["num_layers"] + 1, layers[-1][0]
            (param,) = (
                p
                for p, n in zip(group["params"], group["param_names"], strict=True)
                if n == name
            )
            decayed = param.ndim > 1
        assert group["layer"] == layer, name
        assert group["lr"] == pytest.approx(recipe["lr"] * scale, rel=1e-12), name
        assert group["weight_decay"] == (0.05 if decayed else 0), name
    depths = ARCHS[recipe["arch"]].depths
    assert count == sum(depths) * 9 + 4 * 4 + 4 * 2  # blocks, downsample layers, norms


@pytest.mark.parametrize("name", DET)
def test_detection_schedule(name):
    cfg = load(name)
    assert cfg.train_cfg.max_epochs == 36
    warmup, steps = cfg.param_scheduler
    assert warmup == dict(
        type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500
    )
    assert steps.type == "MultiStepLR"
    assert (steps.milestones, steps.gamma, steps.end) == ([27, 33], 0.1, 36)


@pytest.mark.parametrize("name", DET)
def test_detection_data(name):
    cfg = load(name)
    *_, choice, _ = cfg.train_dataloader.dataset.pipeline
    resize, crop = choice.transforms
    scales = [(side, 1333) for side in range(480, 801, 32)]
    assert resize[0].scales == crop[2].scales == scales
    assert crop[0].scales == [(400, 1333), (500, 1333), (600, 1333)]
    assert (crop[1].crop_type, crop[1].crop_size) == ("absolute_range", (384, 600))
    assert crop[1].allow_negative_crop
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (1333, 800)
    assert cfg.test_evaluator.metric == ["bbox", "segm"]


@pytest.mark.parametrize("name", DET)
def test_detection_heads(name):
    cfg = load(name)
    test_cfg = cfg.model.test_cfg
    assert (test_cfg.rpn.max_per_img, test_cfg.rcnn.max_per_img) == (1000, 100)
    heads, train_cfg = cfg.model.roi_head.bbox_head, cfg.model.train_cfg
    if name.startswith("mask_rcnn"):
        assert (cfg.model.type, heads.type) == ("MaskRCNN", "Shared2FCBBoxHead")
        assert "norm_cfg" not in heads
        assert heads.loss_bbox.type == cfg.model.rpn_head.loss_bbox.type == "L1Loss"
        assert train_cfg.rpn_proposal.max_per_img == 1000
        assert train_cfg.rcnn.assigner.match_low_quality
        return
    assert cfg.model.type == "CascadeRCNN"
    assert cfg.model.rpn_head.loss_bbox.type == "SmoothL1Loss"
    assert train_cfg.rpn_proposal.max_per_img == 2000
    assert [r.assigner.pos_iou_thr for r in train_cfg.rcnn] == [0.5, 0.6, 0.7]
    assert not any(r.assigner.match_low_quality for r in train_cfg.rcnn)
    assert [h.bbox_coder.target_stds[0] for h in heads] == [0.1, 0.05, 0.033]
    for head in heads:
        assert (head.num_shared_convs, head.num_shared_fcs) == (4, 1)
        assert head.norm_cfg.type == "SyncBN"
        assert head.loss_bbox == dict(type="GIoULoss", loss_weight=10.0)
        assert head.reg_decoded_bbox
        assert not head.reg_class_agnostic


@pytest.mark.parametrize("name", SEG)
def test_segmentation_schedule(name):
    cfg = load(name)
    assert cfg.train_cfg.max_iters == 160000
    warmup, poly = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end, warmup.by_epoch) == (1e-6, 1500, False)
    assert (poly.power, poly.eta_min, poly.begin, poly.end) == (1.0, 0.0, 1500, 160000)


@pytest.mark.parametrize("name", SEG)
def test_segmentation_data_and_testing(name):
    recipe, cfg = SEG[name], load(name)
    side = recipe["crop"]
    crop, scale = (side, side), (4 * side, side)
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps["RandomResize"].scale == scale
    assert steps["RandomResize"].ratio_range == (0.5, 2.0)
    assert steps["RandomCrop"] == dict(
        type="RandomCrop", crop_size=crop, cat_max_ratio=0.75
    )
    assert steps["RandomFlip"].prob == 0.5
    assert "PhotoMetricDistortion" in steps
    assert cfg.model.data_preprocessor.size == crop

    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        resize = loader.dataset.pipeline[1]
        assert (resize.scale, resize.keep_ratio) == (scale, True)
    strides = (recipe["slide_stride"],) * 2
    assert cfg.model.test_cfg == dict(mode="slide", crop_size=crop, stride=strides)


@pytest.mark.parametrize("name", SEG)
def test_segmentation_multi_scale(name):
    recipe, cfg = SEG[name], load(name)
    use_tta(cfg)
    assert cfg.model.type == "SegTTAModel"
    assert cfg.model.module.test_cfg.mode == "whole"
    scales, flips, *_ = cfg.test_dataloader.dataset.pipeline[-1].transforms
    side = recipe["crop"]
    assert [s.scale for s in scales] == [
        (int(4 * side * ratio), int(side * ratio))
        for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    ]
    assert all(s.keep_ratio for s in scales)
    assert [f.prob for f in flips] == [0.0, 1.0]


@pytest.mark.parametrize("name", SEG)
def test_segmentation_heads(name):
    head, aux = (load(name).model[h] for h in ("decode_head", "auxiliary_head"))
    assert (head.type, head.channels, head.norm_cfg.type) == ("UPerHead", 512, "SyncBN")
    assert (aux.type, aux.in_index, aux.loss_decode.loss_weight) == ("FCNHead", 2, 0.4)


@pytest.mark.parametrize("name", BEYOND)
def test_recipes_of_others(name):
    """Each fact of a published recipe is the config's."""
    cfg = load(name)
    backbone, optimizer = cfg.model.backbone, cfg.optim_wrapper.optimizer
    paramwise = cfg.optim_wrapper.paramwise_cfg
    milestones = [s.milestones for s in cfg.param_scheduler if "milestones" in s]
    config = dict(
        arch=backbone.arch,
        weights=backbone.init_cfg.checkpoint.rpartition("/")[2],
        drop_path_rate=backbone.drop_path_rate,
        lr=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        backbone_lr_mult=paramwise.get("custom_keys", {}).get("backbone"),
        decay_rate=paramwise.get("decay_rate"),
        num_layers=paramwise.get("num_layers"),
        clip=cfg.optim_wrapper.get("clip_grad", {}).get("max_norm"),
        epochs=cfg.train_cfg.get("max_epochs"),
        iterations=cfg.train_cfg.get("max_iters"),
        milestones=milestones[0] if milestones else None,
        batch=cfg.auto_scale_lr.base_batch_size,
    )
    if config["backbone_lr_mult"]:
        config["backbone_lr_mult"] = config["backbone_lr_mult"].lr_mult
    facts = {key: value for key, value in BEYOND[name].items() if key != "source"}
    assert {key: config[key] for key in facts} == facts
    assert optimizer.type == "AdamW"


def test_mask2former_decays_no_norms_and_embeddings():
    """In the backbone they have its learning rate, a tenth."""
    cfg = load("mask2former_convnext_b_dinov3_coco_panoptic")
    model = build_model(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    options = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    norms = [
        f"{prefix}.{parameter}"
        for prefix, module in model.named_modules()
        if isinstance(module, nn.LayerNorm | nn.GroupNorm)
        for parameter, _ in module.named_parameters(recurse=False)
    ]
    depths = ARCHS[cfg.model.backbone.arch].depths
    assert len([n for n in norms if n.startswith("backbone.")]) == 2 * (
        sum(depths) + 4 + 4
    )
    embeddings = ("query_embed", "query_feat", "level_embed")
    for parameter, tensor in model.named_parameters():
        rate = 1e-5 if parameter.startswith("backbone.") else 1e-4
        alone = parameter in norms or any(e in parameter for e in embeddings)
        assert options[id(tensor)] == pytest.approx((rate, 0.0 if alone else 0.05)), (
            parameter
        )


@pytest.mark.skipif(not SHARED.exists(), reason="the full reference is not here")
def test_facts_are_the_full_reference():
    full = json.loads((SHARED / "reference/recipes.json").read_text())
    for task in ("detection", "segmentation"):
        assert set(full[task]) == set(RECIPES[task])
        for name, recipe in full[task].items():
            assert {**recipe, "layer_decay": ALL[name]["layer_decay"]} == ALL[name]
    assert full["weights"] == RECIPES["weights"]
