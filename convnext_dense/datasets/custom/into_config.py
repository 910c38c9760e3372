"""Fits a config to custom data: its data sets, classes, heads and schedule."""

import copy
from collections.abc import Iterable, Iterator
from importlib import import_module

from mmengine.config import Config
from mmengine.logging import print_log

from convnext_dense.config.sections import dataset_configs
from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import palette

from .schedule import use_schedule

LABEL_MAP_DATASET = "convnext_dense.datasets.custom.mmseg_dataset"
# Keys of a model whose num_classes is not the number of classes of the data.
OTHER_CLASSES = ("backbone", "rpn_head", "data_preprocessor")
SAVE_BEST = dict(mmdet="coco/bbox_mAP", mmseg="mIoU")


def use_data(cfg: Config, data: dict, epochs: int | None) -> None:
    """Make ``cfg`` train, validate and test on custom data.

    Args:
        data: what ``prepare`` has written: ``classes``, ``images`` (the number to
            train on), the paths of ``train`` and ``val``; for detection
            ``category_ids`` and ``has_masks``, for segmentation ``colors``,
            ``zero`` and in newer files ``ids``.
        epochs: None sizes the schedule from the data.

    Raises:
        InputError: the config's model cannot be trained on such data.
    """
    meta = dict(classes=tuple(data["classes"]), palette=palette(data["classes"]))
    if cfg.default_scope == "mmdet":
        _use_coco(cfg, data, dict(meta, category_ids=data["category_ids"]))
    else:
        _use_label_maps(cfg, data, meta)
    if not _set_num_classes(cfg.model, len(data["classes"])):
        raise InputError(
            f"{cfg.filename}: its model has no num_classes, so the number of classes "
            "of the data cannot be set: use a config whose heads have num_classes"
        )
    use_schedule(cfg, data["images"], epochs)
    hook = cfg.default_hooks.checkpoint
    hook.update(save_best=SAVE_BEST[cfg.default_scope], rule="greater")
    if "base_batch_size" in (cfg.get("auto_scale_lr") or {}):
        cfg.auto_scale_lr.enable = True
    else:
        print_log(
            f"{cfg.filename} does not say for which batch size its learning rate is "
            "(auto_scale_lr.base_batch_size): the learning rate stays as it is",
            "current",
        )


def _use_coco(cfg: Config, data: dict, meta: dict) -> None:
    """Set mmdet's data sets and metric; drop the mask head for data without masks."""
    evaluator = cfg.val_evaluator
    metric = evaluator.get("metric", "bbox") if isinstance(evaluator, dict) else "bbox"
    with_masks = "segm" in metric and data["has_masks"]
    if "segm" in metric and not data["has_masks"]:
        _drop_masks(cfg)
    for split in ("train", "val"):
        _replace_dataset(
            cfg[f"{split}_dataloader"],
            dict(
                type="CocoDataset",
                ann_file=data[split]["annotations"],
                data_prefix=dict(img=data[split]["images"]),
                metainfo=meta,
                test_mode=split == "val",
            ),
        )
    cfg.val_evaluator = dict(
        type="CocoMetric",
        ann_file=data["val"]["annotations"],
        metric=["bbox", "segm"] if with_masks else ["bbox"],
        classwise=True,
    )
    _test_as_validated(cfg)


def _drop_masks(cfg: Config) -> None:
    """Make a Mask R-CNN a Faster R-CNN.

    Raises:
        InputError: the model is not a Mask R-CNN.
    """
    if not cfg.model.get("roi_head", {}).get("mask_head"):
        raise InputError(
            f"{cfg.filename}: its {cfg.model.type} needs masks, and the data has "
            "boxes only: use a config of a detector without masks, or one of "
            "configs/det"
        )
    for key in ("mask_head", "mask_roi_extractor"):
        cfg.model.roi_head.pop(key, None)
    cfg.model.data_preprocessor.pad_mask = False
    for split in ("train", "val"):
        for transform in _transforms(cfg[f"{split}_dataloader"]):
            if transform.get("type") == "LoadAnnotations":
                transform["with_mask"] = False
    print_log("the data has no masks: the mask head is left out", "current")


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
        _load_label_maps(_transforms(loader), data)
    _load_label_maps(_nested(cfg.get("tta_pipeline")), data)
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


def _transforms(loader: dict) -> Iterator[dict]:
    """Every transform of a dataloader's pipelines, nested ones too."""
    for dataset in dataset_configs(loader):
        yield from _nested(dataset.get("pipeline"))


def _nested(node) -> Iterator[dict]:
    """Every dict with a ``type`` in nested dicts and lists."""
    if isinstance(node, dict):
        if "type" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from _nested(child)


def _set_num_classes(node, number: int) -> bool:
    """Set every ``num_classes`` below ``node``, except below ``OTHER_CLASSES``.

    Returns:
        whether there was one.
    """
    was_set = False
    if isinstance(node, dict):
        if "num_classes" in node:
            node["num_classes"], was_set = number, True
        node = [child for key, child in node.items() if key not in OTHER_CLASSES]
    if isinstance(node, list | tuple):
        for child in node:
            was_set |= _set_num_classes(child, number)
    return was_set
