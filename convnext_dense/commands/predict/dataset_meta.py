"""Reads the classes, colours and category ids of the data that a model is for.

A checkpoint's ``dataset_meta`` can hold anything. What is wrong there must not end in
an error minutes later, when the first prediction is drawn or written.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from convnext_dense.config.sections import dataset_configs
from convnext_dense.errors import InputError

LARGEST_ID = 2**63  # COCO's ids are numbers that other programs can read


def read(content: Mapping, cfg: Config | None, checkpoint: str) -> dict:
    """The ``dataset_meta`` of a checkpoint, or of a config's test data set.

    Args:
        content: of the checkpoint.
        cfg: the config that the user names; used if the checkpoint has no classes.
        checkpoint: its name, for messages.

    Returns:
        ``classes``, a tuple of at least one name; ``palette``, a list of RGB tuples
        for them, or None; ``category_ids``, a list of integers for them, or None;
        ``reduce_zero_label``, a bool.

    Raises:
        InputError: there are no classes, or they are not names.
    """
    meta = _trained_on(content) or (_test_data(cfg) if cfg else {})
    classes = meta.get("classes")
    if not isinstance(classes, list | tuple) or not classes:
        raise InputError(
            f"{checkpoint} has no class names: put a config before it whose "
            "test_dataloader.dataset.metainfo.classes lists them"
        )
    for number, name in enumerate(classes):
        if not isinstance(name, str) and not _is_id(name):
            raise InputError(
                f"{checkpoint}: the name of class {number} (counted from 0) is not "
                f"text but a {type(name).__name__}: the checkpoint is damaged"
            )
    reduced = meta.get("reduce_zero_label")
    palette, ids = meta.get("palette"), meta.get("category_ids")
    if palette is not None and not _are_colors(palette, len(classes)):
        if not isinstance(palette, str):  # such as mmdet's 'random'
            _note(checkpoint, "palette", "other colours are drawn")
        palette = None
    if ids is not None and not _are_ids(ids, len(classes)):
        _note(checkpoint, "category_ids", "predictions.json numbers the classes")
        ids = None
    return dict(
        classes=tuple(map(str, classes)),
        palette=palette and [tuple(map(int, color)) for color in palette],
        category_ids=ids and list(ids),
        reduce_zero_label=isinstance(reduced, int) and bool(reduced),
    )


def _note(checkpoint: str, key: str, instead: str) -> None:
    """Say that a value does not fit the classes, and what happens instead."""
    print_log(f"{checkpoint}: its {key} does not fit its classes; {instead}", "current")


def _is_id(value: Any) -> bool:
    """Whether a value is an integer of usual size."""
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        and abs(value) < LARGEST_ID
    )


def _are_ids(values: Any, count: int) -> bool:
    """Whether values are different integers, one for each of ``count`` classes."""
    return (
        isinstance(values, list | tuple)
        and len(values) == count
        and all(map(_is_id, values))
        and len(set(values)) == count
    )


def _are_colors(values: Any, count: int) -> bool:
    """Whether values are at least ``count`` colours: red, green, blue, 0 to 255."""
    return (
        isinstance(values, list | tuple)
        and len(values) >= count
        and all(map(_is_color, values))
    )


def _is_color(value: Any) -> bool:
    """Whether a value is three numbers from 0 to 255."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(c, int | float) and 0 <= c <= 255 for c in value)
    )


def _trained_on(content: Mapping) -> dict[str, Any]:
    """The ``dataset_meta`` that a training run writes into its checkpoints, or {}."""
    meta = content.get("meta")
    dataset_meta = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    if not isinstance(dataset_meta, Mapping):
        return {}
    return {k.lower(): v for k, v in dataset_meta.items() if isinstance(k, str)}


def _test_data(cfg: Config) -> dict[str, Any]:
    """The ``dataset_meta`` of a config's test data set, whose files are not read."""
    for dataset in dataset_configs(cfg.get("test_dataloader")):
        with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
            dataset_class = registry.get(dataset["type"])
        metainfo = {
            **getattr(dataset_class, "METAINFO", {}),
            **BaseDataset._load_metainfo(dataset.get("metainfo")),
        }
        if metainfo.get("classes"):
            parameters = inspect.signature(dataset_class).parameters
            default = parameters.get("reduce_zero_label")
            reduced = dataset.get("reduce_zero_label", default and default.default)
            return {"reduce_zero_label": reduced, **metainfo}
    return {}
