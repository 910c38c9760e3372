"""Is what a config names there, and is it what the config takes it for?

``check`` looks before anything is built, and only at what is cheap to see;
``empty_part`` looks at a built data set; ``explain`` looks closely, at what
has failed.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from multiprocessing.util import get_temp_dir
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS

from convnext_dense import checkpoints
from convnext_dense.errors import InputError, MissingStackError

from . import values as settings

TOOLBOXES = {"mmdet": "MMDetection", "mmseg": "MMSegmentation"}
DRAWN = ("ShapesDetection", "ShapesSegmentation")  # make their files themselves

LONGEST_SOCKET = 107 if sys.platform == "linux" else 103  # bytes of a name


def check(cfg: Config, splits: tuple[str, ...]) -> None:
    """Look for the toolbox, the weights and the data that ``cfg`` names.

    Args:
        splits: of 'train', 'val' and 'test', those whose data will be used.

    Raises:
        InputError: the first thing that is not there.
    """
    _check_toolbox(cfg)
    settings.check(cfg, splits)
    _check_tensorboard(cfg)
    for split in splits:
        _check_files(cfg.get(f"{split}_dataloader"), split)
        _check_sockets(cfg.get(f"{split}_dataloader"), split)
    given = [cfg.get("load_from")]
    if "train" in splits:
        init_cfg = cfg.model.get("backbone", {}).get("init_cfg")
        if isinstance(init_cfg, Mapping) and init_cfg.get("type") == "Pretrained":
            given.append(init_cfg["checkpoint"])
    for checkpoint in filter(None, given):
        scheme, separator, _ = checkpoint.partition("://")
        if not separator or scheme in checkpoints.SCHEMES:  # not a file backend's
            checkpoints.locate(checkpoint)


def _check_sockets(loader: Mapping | None, split: str) -> None:
    """Workers hand their tensors over through sockets that have a file's name; where
    it is too long for one, mmengine waits for them for ever."""
    workers = (loader or {}).get("num_workers")
    if isinstance(workers, int) and workers > 0:
        socket = Path(get_temp_dir(), "listener-12345678")
        if len(os.fsencode(socket)) > LONGEST_SOCKET:
            raise InputError(
                f"the folder of temporary files, {tempfile.gettempdir()}, has too long "
                "a name for data-loader workers: set TMPDIR=/tmp in the environment, "
                f"or --cfg-options {split}_dataloader.num_workers=0 "
                f"{split}_dataloader.persistent_workers=False"
            )


def _check_toolbox(cfg: Config) -> None:
    scope = cfg.get("default_scope")
    if scope not in TOOLBOXES or not isinstance(cfg.get("model"), Mapping):
        raise InputError(
            f"{cfg.filename} is neither an MMDetection nor an MMSegmentation config: "
            + (
                "it has no model"
                if scope in TOOLBOXES
                else f"default_scope is {scope!r}, not 'mmdet' or 'mmseg'"
            )
            + "; inherit from one of configs/det or configs/seg"
        )
    if find_spec(scope) is None:
        raise MissingStackError(
            f"{cfg.filename} is a config of {TOOLBOXES[scope]}, which is not installed"
        )


def _check_tensorboard(cfg: Config) -> None:
    backends = cfg.get("visualizer", {}).get("vis_backends") or ()
    kinds = [backend.get("type") for backend in backends]
    if "TensorboardVisBackend" in kinds and find_spec("tensorboard") is None:
        raise InputError(
            f"{cfg.filename} logs for TensorBoard, which is not installed: "
            "pip install tensorboard"
        )


def datasets(loader: Mapping | None) -> Iterator[Mapping]:
    """The data sets of a dataloader, with wrappers like ConcatDataset."""
    queue = [(loader or {}).get("dataset")]
    while queue:
        dataset = queue.pop(0)
        if isinstance(dataset, Mapping):
            queue.append(dataset.get("dataset"))
            queue.extend(dataset.get("datasets") or ())
            if "type" in dataset:
                yield dataset


def _files(dataset: Mapping) -> Iterator[Path]:
    """The annotation file and folders that a data set will read from this disk."""
    root = dataset.get("data_root") or ""
    if dataset.get("backend_args"):
        return  # mmengine's file backends map paths to other places
    prefixes = dataset.get("data_prefix") or {}
    for name in (dataset.get("ann_file"), *prefixes.values()):
        if name and "://" not in root + name:
            yield Path(root) / name


def _check_files(loader: Mapping | None, split: str) -> None:
    missing = [
        f"{dataset['type']} expects {path}"
        for dataset in datasets(loader)
        if dataset["type"] not in DRAWN
        for path in _files(dataset)
        if not path.exists()
    ]
    if missing:
        raise InputError(
            f"the {split} data is not there: " + ",\n  ".join(missing) + ".\n"
            "If the data set is elsewhere, name its folder:\n"
            "  --cfg-options data_root=FOLDER\n"
            f"or this split's own: {split}_dataloader.dataset.data_root=FOLDER, "
            ".ann_file=FILE, .data_prefix"
        )


def empty_part(dataset):
    """The built data set, or the part of a ConcatDataset, that has no images or,
    of detection, no classes; None if there is none."""
    for part in getattr(dataset, "datasets", [dataset]):
        if len(part) == 0 or getattr(part, "cat_ids", None) == []:
            return part
    return None


def explain(cfg: Config, splits: tuple[str, ...]) -> str | None:
    """Why a data set of ``cfg`` has failed or is empty; None if its files are well."""
    for split in splits:
        for dataset in datasets(cfg.get(f"{split}_dataloader")):
            for path in _files(dataset):
                if path.suffix != ".json":
                    continue
                trouble = _coco_trouble(path, _classes(dataset, cfg.default_scope))
                if trouble:
                    return f"the annotations for {split}: {trouble}"
    return None


def _classes(dataset: Mapping, scope: str) -> tuple[str, ...]:
    """The classes that a data set will look for; none if it cannot be told."""
    given = (dataset.get("metainfo") or {}).get("classes")
    with DATASETS.switch_scope_and_registry(scope) as registry:
        kind = registry.get(dataset["type"])
    return tuple(given or getattr(kind, "METAINFO", {}).get("classes", ()))


def _coco_trouble(path: Path, wanted: tuple[str, ...]) -> str | None:
    try:
        content = read_coco(path)
    except InputError as error:
        return str(error)
    here = [category.get("name") for category in content["categories"]]
    if wanted and not set(wanted) & set(here):
        return (
            f"{path} has none of the config's classes ({_few(wanted)}); its own are "
            f"{_few(here)}: name them as --train-json, or set metainfo.classes of each "
            "data set and num_classes of each head"
        )
    return None


def read_coco(path: Path) -> dict:
    """The content of a COCO annotation file, with lists of images, annotations and
    categories.

    Raises:
        InputError: it is not one, or has no images.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is not a COCO annotation file: it holds a {type(content).__name__}"
        )
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part), list):
            raise InputError(
                f"{path} is not a COCO annotation file: it has no list of {part}, only "
                f"{', '.join(content) or 'nothing'}"
            )
    if not content["images"]:
        raise InputError(f"{path} has no images")
    return content


def _few(names) -> str:
    names = list(map(str, names))
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
