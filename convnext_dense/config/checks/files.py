"""Checks that the files a config names exist."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS

from convnext_dense import checkpoints
from convnext_dense.errors import InputError
from convnext_dense.utils.files import require_regular

from ..sections import dataset_configs

# These data sets draw their own files.
DRAWN = ("ShapesDetection", "ShapesSegmentation")


def check_weights(cfg: Config, splits: Sequence[str]) -> None:
    """Raise an InputError if a checkpoint that ``cfg`` names does not exist."""
    named = [cfg.get("load_from")]
    if "train" in splits:
        init_cfg = cfg.model.get("backbone", {}).get("init_cfg")
        if isinstance(init_cfg, Mapping) and init_cfg.get("type") == "Pretrained":
            named.append(init_cfg["checkpoint"])
    for checkpoint in filter(None, named):
        scheme, separator, _ = checkpoint.partition("://")
        # Other schemes are of mmengine's file backends.
        if not separator or scheme in checkpoints.SCHEMES:
            checkpoints.locate(checkpoint)


def check_annotations(cfg: Config, split: str) -> None:
    """Check that the toolbox's own data sets get annotations of their task.

    mmseg would take the lines of a JSON file for the names of images.

    Raises:
        InputError: a segmentor has a COCO file, or a detector a folder of label maps.
    """
    for dataset in dataset_configs(cfg.get(f"{split}_dataloader")):
        file = dataset.get("ann_file")
        if not isinstance(file, str):
            continue
        path = Path(dataset.get("data_root") or "") / file
        with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
            dataset_type = registry.get(dataset["type"])
        toolbox = getattr(dataset_type, "__module__", "").partition(".")[0]
        if toolbox == "mmseg" and path.suffix == ".json":
            raise InputError(
                f"{split}_dataloader: {dataset['type']} of a segmentation config reads "
                f"a list of image names, and its ann_file is {path}. A segmentor "
                "learns from label maps (data_prefix.seg_map_path); for the objects of "
                "a COCO file, use a config of configs/det"
            )
        if toolbox == "mmdet" and file and path.is_dir():
            raise InputError(
                f"{split}_dataloader: {dataset['type']} of a detection config reads a "
                f"file of objects, and its ann_file is the folder {path}. Name the "
                "file; for label maps, use a config of configs/seg"
            )


def check_data(loader: Mapping | None, split: str, drawn: bool = False) -> None:
    """Check that the files and folders of a split's data exist.

    Args:
        drawn: check this for the built-in data set, too, which is drawn otherwise.

    Raises:
        InputError: some do not, or one is a pipe, a device or a socket.
    """
    missing = [
        f"{dataset['type']} expects {path}"
        for dataset in dataset_configs(loader)
        if drawn or dataset["type"] not in DRAWN
        for path in data_paths(dataset)
        if not os.path.exists(path)
    ]
    if missing:
        raise InputError(
            f"the {split} data is not there: " + ",\n  ".join(missing) + ".\n"
            "If the data set is in another place, name its folder:\n"
            "  --cfg-options data_root=FOLDER\n"
            f"or the files of this split: {split}_dataloader.dataset.data_root=FOLDER, "
            ".ann_file=FILE, .data_prefix"
        )
    for dataset in dataset_configs(loader):
        if dataset["type"] not in DRAWN:
            for path in data_paths(dataset):
                if not path.is_dir():
                    require_regular(path)


def data_paths(dataset: Mapping) -> Iterator[Path]:
    """The annotation file and the folders that a data set reads from the local disk."""
    root = dataset.get("data_root") or ""
    if dataset.get("backend_args"):
        return  # mmengine's file backends map paths to other places
    prefixes = dataset.get("data_prefix") or {}
    for name in (dataset.get("ann_file"), *prefixes.values()):
        if name and "://" not in root + name:
            yield Path(root) / name
