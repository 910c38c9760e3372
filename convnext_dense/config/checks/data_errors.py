"""Why a data set failed or is empty, found by a closer look at its files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS

from convnext_dense.errors import InputError
from convnext_dense.utils.coco_json import read_coco
from convnext_dense.utils.text import few

from ..sections import dataset_configs
from .files import annotation_files


def empty_dataset(dataset):
    """A built data set, or one that a ConcatDataset joins, without images or classes.

    Returns:
        the data set; None if each has images and, for detection, classes.
    """
    for joined in getattr(dataset, "datasets", [dataset]):
        if len(joined) == 0 or getattr(joined, "cat_ids", None) == []:
            return joined
    return None


def explain_data(cfg: Config, splits: Sequence[str]) -> str | None:
    """What is wrong with the COCO files of ``cfg``; None if nothing is."""
    for split in splits:
        for dataset in dataset_configs(cfg.get(f"{split}_dataloader")):
            for path in annotation_files(dataset):
                if path.suffix != ".json":
                    continue
                trouble = _coco_trouble(path, _classes(dataset, cfg.default_scope))
                if trouble:
                    return f"the annotations for {split}: {trouble}"
    return None


def _classes(dataset: Mapping, scope: str) -> tuple[str, ...]:
    """The classes that a data set looks for; empty if they are not known."""
    given = (dataset.get("metainfo") or {}).get("classes")
    with DATASETS.switch_scope_and_registry(scope) as registry:
        dataset_type = registry.get(dataset["type"])
    return tuple(given or getattr(dataset_type, "METAINFO", {}).get("classes", ()))


def _coco_trouble(path: Path, wanted: tuple[str, ...]) -> str | None:
    try:
        content = read_coco(path)
    except InputError as error:
        return str(error)
    own = [category.get("name") for category in content["categories"]]
    if wanted and not set(wanted) & set(own):
        return (
            f"{path} has none of the config's classes ({few(wanted, 5)}); its own "
            f"are {few(own, 5)}: name the file as --train-json, or set "
            "metainfo.classes of each data set and num_classes of each head"
        )
    return None
