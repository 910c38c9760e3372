"""Fits a config to custom data: its data sets, classes, heads and schedule."""

import copy
from collections.abc import Iterable, Mapping
from importlib import import_module
from itertools import chain
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from convnext_dense.config.sections import (
    dataset_configs,
    transforms,
    typed_sections,
)
from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import palette

from .class_settings import use_classes
from .option_settings import keep_settings
from .schedule import use_schedule

LABEL_MAP_DATASET = "convnext_dense.datasets.custom.mmseg_dataset"
# Heads on regions that work with boxes alone.
MASKS_OPTIONAL = (
    *("StandardRoIHead", "CascadeRoIHead", "SparseRoIHead", "DynamicRoIHead"),
    *("PISARoIHead", "TridentRoIHead", "DoubleHeadRoIHead"),
)
LEARNING_RATE = "optim_wrapper.optimizer.lr"
SAVE_BEST = dict(mmdet="coco/bbox_mAP", mmseg="mIoU")


def use_data(
    cfg: Config, data: dict, epochs: int | None, settings: Mapping[str, Any] = {}
) -> None:
    """Make ``cfg`` train, validate and test on custom data.

    Args:
        data: what ``prepare`` has written: ``classes``, ``images`` (the number to
            train on), the paths of ``train`` and ``val``; for detection
            ``category_ids`` and ``has_masks``, for segmentation ``colors``,
            ``zero`` and in newer files ``ids``.
        epochs: None sizes the schedule from the data.
        settings: of ``--cfg-options``, by their keys with dots; they stay as they are.

    Raises:
        InputError: the config's model cannot be trained on such data.
    """
    meta = dict(classes=tuple(data["classes"]), palette=palette(data["classes"]))
    if cfg.default_scope == "mmdet":
        _use_coco(cfg, data, dict(meta, category_ids=data["category_ids"]))
    else:
        _use_label_maps(cfg, data, meta)
    use_classes(cfg, data["classes"])
    cfg.default_hooks = cfg.get("default_hooks") or {}
    cfg.default_hooks.setdefault("checkpoint", dict(type="CheckpointHook"))
    hook = cfg.default_hooks.checkpoint
    use_schedule(cfg, data["images"], epochs)
    hook.update(save_best=SAVE_BEST[cfg.default_scope], rule="greater")
    _use_auto_scale_lr(cfg, settings)
    keep_settings(cfg, settings)


def _use_auto_scale_lr(cfg: Config, settings: Mapping[str, Any]) -> None:
    """Let the learning rate follow the batch size, or say why it does not."""
    scaling = cfg.get("auto_scale_lr") or {}
    if LEARNING_RATE in settings and not scaling.get("enable"):
        message = (
            f"--cfg-options {LEARNING_RATE}={settings[LEARNING_RATE]} is not scaled; "
            "with --auto-scale-lr, it follows the batch size"
        )
    elif "base_batch_size" in scaling:
        scaling["enable"] = True
        return
    else:
        message = (
            f"{cfg.filename} does not say for which batch size its learning rate is "
            "(auto_scale_lr.base_batch_size): the learning rate stays as it is"
        )
    print_log(message, "current")


def _use_coco(cfg: Config, data: dict, meta: dict) -> None:
    """Set mmdet's data sets and metric; drop the mask head for data without masks."""
    needs_masks = any(
        step.get("with_mask") for step in transforms(cfg.train_dataloader)
    )
    if needs_masks and not data["has_masks"]:
        _drop_masks(cfg)
    _drop_semantic_head(cfg)
    for split in ("train", "val"):
        loader = cfg[f"{split}_dataloader"]
        dataset = dict(
            type="CocoDataset",
            ann_file=data[split]["annotations"],
            data_prefix=dict(img=data[split]["images"]),
            metainfo=meta,
            test_mode=split == "val",
        )
        # Models that take text, such as Grounding DINO, get the names of the classes.
        if any(config.get("return_classes") for config in dataset_configs(loader)):
            dataset["return_classes"] = True
        _replace_dataset(loader, dataset)
    metrics = [
        evaluator.get("metric", ()) for evaluator in typed_sections(cfg.val_evaluator)
    ]
    names = {name for m in metrics for name in ([m] if isinstance(m, str) else m)}
    cfg.val_evaluator = dict(
        type="CocoMetric",
        ann_file=data["val"]["annotations"],
        metric=["bbox", "segm"] if "segm" in names and data["has_masks"] else ["bbox"],
        classwise=True,
    )
    _test_as_validated(cfg)


def _drop_masks(cfg: Config) -> None:
    """Leave out the mask head of a detector that also works without one.

    Raises:
        InputError: the model needs masks.
    """
    head = cfg.model.get("roi_head") or {}
    if not head.get("mask_head") or head.get("type") not in MASKS_OPTIONAL:
        raise InputError(
            f"{cfg.filename}: its {cfg.model.type} needs masks, and the data has "
            "boxes only: use a config of a detector without masks, or one of "
            "configs/det"
        )
    for key in ("mask_head", "mask_roi_extractor"):
        head.pop(key, None)
    cfg.model.data_preprocessor.pad_mask = False
    _set_in_pipelines(cfg, "with_mask", False)
    print_log("the data has no masks: the mask head is left out", "current")


def _drop_semantic_head(cfg: Config) -> None:
    """Leave out the head of HTC or SCNet that learns from label maps."""
    head = cfg.model.get("roi_head") or {}
    if head.get("semantic_head"):
        head["semantic_head"] = head["semantic_roi_extractor"] = None
        _set_in_pipelines(cfg, "with_seg", False)
        print_log(
            "the data has no label maps beside its objects: the semantic head is left "
            "out",
            "current",
        )


def _set_in_pipelines(cfg: Config, key: str, value: bool) -> None:
    """Change a setting of every transform that has it, also of those in hooks."""
    pipelines = [transforms(cfg[f"{split}_dataloader"]) for split in ("train", "val")]
    for step in chain(*pipelines, typed_sections(cfg.get("custom_hooks"))):
        if key in step:
            step[key] = value


def _use_label_maps(cfg: Config, data: dict, meta: dict) -> None:
    """Set mmseg's data sets, loading of label maps and metric."""
    imports = cfg.setdefault("custom_imports", dict(imports=[]))
    imports["imports"] = [*imports["imports"], LABEL_MAP_DATASET]
    import_module(LABEL_MAP_DATASET)
    for split in ("train", "val"):
        loader = cfg[f"{split}_dataloader"]
        _replace_dataset(
            loader,
            dict(
                type="LabelMapDataset",
                ann_file=data[split]["annotations"],
                data_prefix=dict(
                    img_path=data[split]["images"],
                    seg_map_path=data[split]["labels"],
                ),
                reduce_zero_label=not data["zero"],
                metainfo=meta,
                test_mode=split == "val",
            ),
        )
        _load_label_maps(transforms(loader), data)
    for pipeline in (cfg.get("tta_pipeline"), cfg.get("custom_hooks")):
        _load_label_maps(typed_sections(pipeline), data)
    cfg.val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
    _test_as_validated(cfg)


def _load_label_maps(transforms: Iterable[dict], data: dict) -> None:
    """Replace every transform that loads annotations."""
    options = dict(colors=data["colors"])
    if data.get("ids") is not None:
        options["ids"] = data["ids"]
    for transform in transforms:
        if str(transform.get("type")).endswith("Annotations"):
            transform.clear()
            transform.update(options, type="LoadLabelMapAnnotations")


def _replace_dataset(loader: dict, dataset: dict) -> None:
    """Put ``dataset`` into a dataloader, with the pipeline of the one it replaces.

    A wrapper around one data set, such as RepeatDataset, stays. A wrapper around
    several data sets is replaced as a whole.
    """
    configs = [c for c in dataset_configs(loader) if isinstance(c, dict)]
    pipeline = configs[-1].get("pipeline", [])
    several = any("datasets" in config for config in configs)
    replaced = loader["dataset"] if several else configs[-1]
    replaced.clear()
    replaced.update(dataset, pipeline=pipeline)


def _test_as_validated(cfg: Config) -> None:
    """Test on the validation split."""
    cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    cfg.test_evaluator = copy.deepcopy(cfg.val_evaluator)
