"""Explains why a data set failed or is empty, by reading its annotation files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from convnext_dense.errors import InputError
from convnext_dense.utils.coco_json import read_coco
from convnext_dense.utils.text import few

from ..sections import dataset_configs
from .files import data_paths


def empty_dataset(dataset: Any) -> Any:
    """The first data set without images or, for detection, without classes.

    Args:
        dataset: a built data set; those that a ConcatDataset joins are looked at one
            by one.

    Returns:
        The empty data set, or None.
    """
    for member in getattr(dataset, "datasets", [dataset]):
        if len(member) == 0 or getattr(member, "cat_ids", None) == []:
            return member
    return None


def explain_data(cfg: Config, splits: Sequence[str]) -> str | None:
    """The message about the first faulty COCO file of ``cfg``; None without a fault."""
    for split in splits:
        for dataset in dataset_configs(cfg.get(f"{split}_dataloader")):
            for path in data_paths(dataset):
                if path.suffix != ".json":
                    continue
                problem = _coco_problem(path, _classes(dataset, cfg.default_scope))
                if problem:
                    return f"the annotations for {split}: {problem}"
    return None


def _classes(dataset: Mapping, scope: str) -> tuple[str, ...]:
    """The classes of a data set's config or type; empty if neither states them."""
    configured = (dataset.get("metainfo") or {}).get("classes")
    with DATASETS.switch_scope_and_registry(scope) as registry:
        dataset_type = registry.get(dataset["type"])
    return tuple(configured or getattr(dataset_type, "METAINFO", {}).get("classes", ()))


def _coco_problem(path: Path, classes: tuple[str, ...]) -> str | None:
    """Why a COCO file cannot be used with ``classes``; None if it can."""
    try:
        content = read_coco(path)
    except InputError as error:
        return str(error)
    entries = [entry for entry in content["categories"] if isinstance(entry, dict)]
    names = [entry.get("name") for entry in entries]
    categories = [name for name in names if isinstance(name, str)]
    if classes and not set(classes) & set(categories):
        present = few(categories, 5) or "none"
        return (
            f"{path} has none of the config's classes ({few(classes, 5)}); its own "
            f"are {present}: name the file as --train-json, or set "
            "metainfo.classes of each data set and num_classes of each head"
        )
    return None
