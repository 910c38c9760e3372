"""New options that something reads are accepted; tests/bad_inputs has the others."""

import pytest

from convnext_dense.config.checks.names import check_names, check_options
from convnext_dense.config.options import load_config
from convnext_dense.errors import InputError

from ..helpers.mmengine_state import logged
from ..helpers.paths import ROOT
from ..helpers.runs import COCO, DET, SEG

NEW = [  # valid settings that the config does not have
    "model.backbone.with_cp=True",
    "model.backbone.frozen_stages=2",
    "model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=x.pth",
    "model.roi_head.bbox_head.0.num_cls_fcs=1",
    "model.neck.type=mmdet.FPN model.neck.add_extra_convs=on_output",
    "model.roi_head.mask_head.norm_cfg.requires_grad=False",
    "model.test_cfg.rcnn.nms.class_agnostic=True",
    "train_dataloader.drop_last=True",
    "train_dataloader.num_batch_per_epoch=3",
    "train_dataloader.prefetch_factor=4",
    "train_dataloader.dataset.indices=2",
    "val_dataloader.dataset.metainfo.palette=[(1,2,3)]",
    "default_hooks.checkpoint.save_best=auto",
    "default_hooks.checkpoint.published_keys=[meta]",
    "default_hooks.logger2.type=LoggerHook",
    "default_hooks.early.type=EarlyStoppingHook default_hooks.early.monitor=loss",
    "optim_wrapper.clip_grad.norm_type=1.",
    "optim_wrapper.accumulative_counts=2",
    "optim_wrapper.paramwise_cfg.norm_decay_mult=0.",
    "optim_wrapper.paramwise_cfg.custom_keys.norm1.decay_mult=0.",
    "optim_wrapper.optimizer.betas=(0.9,0.99)",
    "optim_wrapper.loss_scale=dynamic",
    "param_scheduler.0.verbose=True",
    "train_cfg.dynamic_intervals=[(1,2)]",
    "train_cfg.val_begin=2",
    "randomness.deterministic=True",
    "env_cfg.resource_limit=4096",
    "find_unused_parameters=True",
    "experiment_name=mine",
    "compile=True",
    "model_wrapper_cfg.type=MMDistributedDataParallel",
    "val_evaluator.classwise=True",
    "train_cfg._delete_=True train_cfg.by_epoch=True train_cfg.max_epochs=3",
]


@pytest.mark.parametrize("options", NEW)
def test_new_settings_are_taken(options):
    cfg = load_config(str(DET), options.split())
    name, _, _ = options.split()[-1].partition("=")
    node = cfg
    for key in name.split("."):
        node = node[int(key)] if isinstance(node, list) else node[key]


def test_a_variable_of_the_config_file_is_reported():
    """A config file computes settings from ``max_epochs = 4`` when it is read."""
    with logged() as messages:
        load_config(str(DET), ["max_epochs=2"])
    (message,) = [m for m in messages if "max_epochs changes nothing" in m]
    assert message.endswith("Change those settings, such as train_cfg.max_epochs")
    with logged() as messages:
        load_config(str(DET), ["train_cfg.max_epochs=2", "data_root=x"])
    assert messages == []


def test_no_name_in_a_config_counts_as_misspelt():
    for file in (*ROOT.glob("configs/det/*.py"), *ROOT.glob("configs/seg/*.py")):
        check_names(load_config(str(file)), ("train", "val", "test"))


def test_near_names():
    cfg = load_config(str(COCO))
    with pytest.raises(
        InputError, match=r"nothing reads val_datalaoder.*val_dataloader"
    ):
        check_options(cfg, {"val_datalaoder.batch_size": 1})
    check_options(cfg, {"model.test_cfg.rcnn.score_thr": 0.1})
    cfg = load_config(str(SEG))
    with pytest.raises(InputError, match=r"did you mean model.decode_head.channels"):
        check_options(cfg, {"model.decode_head.chanels": 1})
