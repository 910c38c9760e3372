"""The settings of a model that follow the classes of custom data."""

import copy
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from convnext_dense.datasets.custom.class_settings import use_classes
from convnext_dense.datasets.custom.task import check_task
from convnext_dense.engine.watch import classes
from convnext_dense.errors import InputError

CLASSES = ("ant", "bee", "wasp")


def fitted(model, scope="mmseg", names=CLASSES):
    cfg = Config(dict(default_scope=scope, model=copy.deepcopy(model)))
    init_default_scope(scope)
    use_classes(cfg, names)
    return cfg.model.to_dict()


def stock(scope, name):
    """A config that the installed toolbox ships."""
    folder = Path(importlib.util.find_spec(scope).origin).parent / ".mim/configs"
    return Config.fromfile(folder / name)


def seg(**head):
    return dict(type="EncoderDecoder", decode_head=dict(type="FCNHead", **head))


# Model, and the settings below it that change.
FOLLOW = {
    "a weight for each class, all the same": (
        seg(num_classes=5, loss_decode=dict(class_weight=[2.0] * 5)),
        {"decode_head.loss_decode.class_weight": [2.0] * 3},
    ),
    "weights of a list of losses": (
        seg(num_classes=5, loss_decode=[dict(class_weight=[1] * 5), dict(x=1)]),
        {"decode_head.loss_decode.0.class_weight": [1] * 3},
    ),
    "weights for the classes of the data": (
        seg(num_classes=5, loss_decode=dict(class_weight=[0.5, 1, 2])),
        {"decode_head.loss_decode.class_weight": [0.5, 1, 2]},
    ),
    "weights with that of no object": (
        seg(num_classes=5, loss_cls=dict(class_weight=[1.0] * 5 + [0.1])),
        {"decode_head.loss_cls.class_weight": [1.0] * 3 + [0.1]},
    ),
    "SAN states the weights of more classes than it has": (
        seg(num_classes=5, loss_cls=dict(class_weight=[1.0] * 9 + [0.1])),
        {"decode_head.loss_cls.class_weight": [1.0] * 3 + [0.1]},
    ),
    "a focal loss's alpha": (
        seg(num_classes=5, loss_decode=dict(type="FocalLoss", alpha=[0.5] * 5)),
        {"decode_head.loss_decode.alpha": [0.5] * 3},
    ),
    "thresholds of classes": (
        dict(seg(num_classes=5), test_cfg=dict(score_thr=[0.3] * 5)),
        {"test_cfg.score_thr": [0.3] * 3},
    ),
    "numbers that are not of classes": (
        dict(seg(num_classes=5), test_cfg=dict(score_thr=[0.3, 0.5])),
        {"test_cfg.score_thr": [0.3, 0.5]},
    ),
    "output channels": (
        seg(num_classes=5, out_channels=5),
        {"decode_head.out_channels": 3},
    ),
    "one output channel": (
        seg(num_classes=2, out_channels=1, threshold=0.4),
        {"decode_head.out_channels": 3, "decode_head.threshold": None},
    ),
    "channels of masks": (
        seg(num_classes=5, out_channels=256),
        {"decode_head.out_channels": 256},
    ),
    "kernels": (
        seg(
            num_classes=5,
            kernel_generate_head=dict(num_classes=5),
            kernel_update_head=[dict(num_classes=5)],
        ),
        {
            "decode_head.kernel_generate_head.num_classes": 3,
            "decode_head.kernel_update_head.0.num_classes": 3,
        },
    ),
    "STDC's head of edges": (
        dict(seg(num_classes=5), auxiliary_head=[dict(type="STDCHead", num_classes=2)]),
        {"decode_head.num_classes": 3, "auxiliary_head.0.num_classes": 2},
    ),
    "the names in a text encoder": (
        dict(seg(num_classes=5), text_encoder=dict(dataset_name="voc")),
        {
            "text_encoder.vocabulary": list(CLASSES),
            "text_encoder.dataset_name": None,
        },
    ),
}
DETECTORS = {
    "things": (
        dict(
            panoptic_head=dict(
                num_things_classes=80,
                num_stuff_classes=0,
                loss_cls=dict(class_weight=[1.0] * 80 + [0.1]),
            ),
            panoptic_fusion_head=dict(num_things_classes=80, num_stuff_classes=0),
        ),
        {
            "panoptic_head.num_things_classes": 3,
            "panoptic_head.loss_cls.class_weight": [1.0] * 3 + [0.1],
            "panoptic_fusion_head.num_things_classes": 3,
            "panoptic_fusion_head.num_stuff_classes": 0,
        },
    ),
    "defaults": (
        dict(
            rpn_head=dict(type="RPNHead"),
            bbox_head=dict(type="Shared2FCBBoxHead", loss_cls=dict(type="SeesawLoss")),
            mask_head=dict(type="FCNMaskHead"),
        ),
        {
            "rpn_head.num_classes": None,
            "bbox_head.num_classes": 3,
            "bbox_head.loss_cls.num_classes": 3,
            "mask_head.num_classes": 3,
        },
    ),
}


@pytest.mark.parametrize("case", [*FOLLOW, *DETECTORS])
def test_what_follows(case):
    model, expected = {**FOLLOW, **DETECTORS}[case]
    result = fitted(model, "mmdet" if case in DETECTORS else "mmseg")
    for path, value in expected.items():
        node = result
        for key in path.split("."):
            node = node[int(key)] if isinstance(node, list) else node.get(key)
        assert node == value, path


def test_one_output_channel_stays_for_two_classes():
    head = seg(num_classes=2, out_channels=1)
    assert fitted(head, names=("a", "b"))["decode_head"]["out_channels"] == 1


def test_weights_that_cannot_follow():
    """The message's advice, followed, gives a config that fits."""
    losses = [dict(class_weight=[0.8, 1, 1.2, 1, 1]), dict(class_weight=[1, 2])]
    model = seg(num_classes=5, loss_decode=losses)
    with pytest.raises(InputError) as caught:
        fitted(model)
    assert "the data has 3 (ant, bee, wasp)" in str(caught.value)
    options = [
        f"model.decode_head.loss_decode.{i}.class_weight={{value}}" for i in (0, 1)
    ]
    assert " ".join(o.format(value=None) for o in options) in str(caught.value)
    for value in (None, [1, 2, 3]):
        for loss in losses:
            loss["class_weight"] = value
        heads = fitted(model)["decode_head"]
        assert [loss["class_weight"] for loss in heads["loss_decode"]] == [value] * 2


# Configs of stock models, and a part of the message about their task.
OTHER_TASKS = {
    "maskformer/maskformer_r50_ms-16xb1-75e_coco.py": "panoptic segmentation",
    "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py": "panoptic segmentation",
    "fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py": "detection in stored proposals",
    "rpn/rpn_r50_fpn_1x_coco.py": "region proposals",
    "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_"
    "semi-0.1-coco.py": "semi-supervised detection",
    "masktrack_rcnn/masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_"
    "youtubevis2019.py": "tracking",
    "vpd/vpd_sd_4xb8-25k_nyu-480x480.py": "depth estimation",
    "swin/swin-tiny-patch4-window7_upernet_1xb8-20k_"
    "levir-256x256.py": "change detection",
}


@pytest.mark.parametrize("name", OTHER_TASKS)
def test_configs_of_other_tasks(name):
    scope = "mmseg" if name.startswith(("vpd", "swin")) else "mmdet"
    with pytest.raises(InputError, match=f"config of {OTHER_TASKS[name]}, which needs"):
        check_task(stock(scope, name))


STOCK = {
    ("mmdet", "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py"): "panoptic_head",
    (
        "mmseg",
        "mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py",
    ): "decode_head",
}


@pytest.mark.parametrize("config", STOCK, ids=["mmdet", "mmseg"])
def test_stock_mask2former(config):
    """Its losses have a weight for each class, and for no object."""
    cfg = stock(*config)
    check_task(cfg)
    use_classes(cfg, CLASSES)
    head = cfg.model[STOCK[config]]
    init_default_scope(config[0])
    for layers in (head.pixel_decoder.encoder, head.transformer_decoder):
        layers.num_layers = 1
    built = MODELS.build(dict(head, train_cfg=cfg.model.train_cfg))
    assert built.cls_embed.out_features == len(built.loss_cls.class_weight) == 4
    model = torch.nn.Module()
    setattr(model, STOCK[config], built)
    data = SimpleNamespace(metainfo=dict(classes=CLASSES))
    assert classes.problem(model, data) is None
    built.loss_cls.class_weight = [1.0] * 20
    message = classes.problem(model, data)
    assert "loss_cls.class_weight has 20 numbers" in message
    assert "has 4 scores with that of no object: give 4 numbers" in message
