"""Turn a config to somebody's own data: data sets, classes, heads, schedule."""

import copy
from importlib import import_module

from mmengine.config import Config
from mmengine.logging import print_log

from convnext_dense.config.sections import dataset_configs
from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import palette

from .schedule import use_schedule

LABEL_FOLDER = "convnext_dense.datasets.custom.mmseg_dataset"  # mmseg's side of it
# Parts of a model whose num_classes are not the data set's.
OTHER_CLASSES = ("backbone", "rpn_head", "data_preprocessor")
BEST = dict(mmdet="coco/bbox_mAP", mmseg="mIoU")


def use_data(cfg: Config, data: dict, epochs: int | None) -> None:
    """Train, validate and test on ``data``.

    Args:
        data: what ``own_data.prepare`` has written: ``classes``, ``images`` (how
            many to train on), the files of ``train`` and ``val``; of detection
            ``category_ids`` and ``has_masks``, of segmentation ``colors`` and
            ``zero``.
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
            f"{cfg.filename}: no num_classes in its model: which heads depend on the "
            "data cannot be told"
        )
    use_schedule(cfg, data["images"], epochs)
    hook = cfg.default_hooks.checkpoint
    hook.update(save_best=BEST[cfg.default_scope], rule="greater")
    if "base_batch_size" in (cfg.get("auto_scale_lr") or {}):
        cfg.auto_scale_lr.enable = True
    else:
        print_log(
            f"{cfg.filename} does not say for which batch size its learning rate is "
            "(auto_scale_lr.base_batch_size): it is taken as it is",
            "current",
        )


def _use_coco(cfg: Config, data: dict, meta: dict) -> None:
    evaluator = cfg.val_evaluator
    wanted = evaluator.get("metric", "bbox") if isinstance(evaluator, dict) else "bbox"
    with_masks = "segm" in wanted and data["has_masks"]
    if "segm" in wanted and not data["has_masks"]:
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
    if not cfg.model.get("roi_head", {}).get("mask_head"):
        raise InputError(
            f"{cfg.filename}: its {cfg.model.type} needs masks, and the data has "
            "boxes only: take a config of a detector, or one of configs/det"
        )
    for part in ("mask_head", "mask_roi_extractor"):
        cfg.model.roi_head.pop(part, None)
    cfg.model.data_preprocessor.pad_mask = False
    for split in ("train", "val"):
        for step in _steps(cfg[f"{split}_dataloader"]):
            if step.get("type") == "LoadAnnotations":
                step.with_mask = False
    print_log("the data has no masks: the mask head is left out", "current")


def _use_label_maps(cfg: Config, data: dict, meta: dict) -> None:
    imports = cfg.setdefault("custom_imports", dict(imports=[]))
    imports["imports"] = [*imports["imports"], LABEL_FOLDER]
    import_module(LABEL_FOLDER)
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
        _load_label_maps(_steps(loader), data["colors"])
    _load_label_maps(_nested(cfg.get("tta_pipeline")), data["colors"])
    cfg.val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
    _test_as_validated(cfg)


def _load_label_maps(steps, colors: list | None) -> None:
    for step in steps:
        if str(step.get("type")).endswith("Annotations"):
            step.clear()
            step.update(type="LoadLabelMapAnnotations", colors=colors)


def _replace_dataset(loader: dict, dataset: dict) -> None:
    """Put ``dataset`` into a dataloader with the pipeline that is there.

    A wrapper such as RepeatDataset stays; one of several data sets does not.
    """
    found = list(dataset_configs(loader))
    pipeline = found[-1].get("pipeline", [])
    several = any("datasets" in one for one in found)
    place = loader.dataset if several else found[-1]
    place.clear()
    place.update(dataset, pipeline=pipeline)


def _test_as_validated(cfg: Config) -> None:
    cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    cfg.test_evaluator = copy.deepcopy(cfg.val_evaluator)


def _steps(loader: dict):
    """Every transform of a dataloader's pipelines, nested ones too."""
    for dataset in dataset_configs(loader):
        yield from _nested(dataset.get("pipeline"))


def _nested(node):
    if isinstance(node, dict):
        if "type" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from _nested(child)


def _set_num_classes(node, number: int) -> bool:
    """Whether there was one to set anywhere below ``node``."""
    found = False
    if isinstance(node, dict):
        if "num_classes" in node:
            node["num_classes"], found = number, True
        node = [child for key, child in node.items() if key not in OTHER_CLASSES]
    if isinstance(node, list | tuple):
        for child in node:
            found |= _set_num_classes(child, number)
    return found
