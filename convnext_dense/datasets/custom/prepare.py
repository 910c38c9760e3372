"""Checks custom data, writes its splits beside the run, and fits the config to it."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from convnext_dense.errors import InputError
from convnext_dense.utils import files, images
from convnext_dense.utils.coco_json import read_coco
from convnext_dense.utils.distributed import on_main
from convnext_dense.utils.json_files import read_json
from convnext_dense.utils.outputs import Folder
from convnext_dense.utils.text import few

from . import coco_check, label_check, label_files, summary
from .class_lists import COLOR_FILES, FILES, ClassList, class_list, read_class_list
from .coco import CocoSplit
from .coco_entries import image_name
from .draw_split import draw_split
from .formats.content import Reading
from .into_config import use_data
from .label_maps import read_color_map
from .label_split import LabelSplit
from .layouts import DatasetPaths, SplitPaths, find_dataset
from .problems import note, warning
from .splits import Split, same_images
from .task import TASK_NAMES, check_task

IN_BOTH = warning(
    "images that are in the training split too",
    "remove them: results on them say nothing about new images",
)

LISTED_CLASSES = note(
    "lists of classes found beside the data",
    "their classes are used; to use others, give --classes or --color-map",
)

# Options for one type of data only, and what the other type is called in messages.
_ONLY_FOR = {
    "mmseg": ("classes", "color_map", "reduce_zero_label"),
    "mmdet": ("boxes_only", "allow_dropped"),
}
# Of the annotations in a data set's folder.
FORMAT_SUFFIXES = (".json", ".txt", ".xml", ".yaml", ".yml", ".data", ".names")
_DATA_NAMES = {"mmdet": "a COCO file", "mmseg": "label maps"}
# The flag of the annotations: --train-json, --val-labels.
_ANNOTATION_FLAGS = {"mmdet": "json", "mmseg": "labels"}
_SPLIT_OPTIONS = tuple(
    f"{split}_{content}"
    for split in ("train", "val")
    for content in ("json", "images", "labels")
)


@dataclass
class Options:
    """The command line's options for custom data; convnext-dense inspect-data --help
    explains them."""

    data: str | None = None
    train_json: str | None = None
    train_images: str | None = None
    train_labels: str | None = None
    val_json: str | None = None
    val_images: str | None = None
    val_labels: str | None = None
    classes: list[str] | None = None
    color_map: str | None = None
    reduce_zero_label: bool = False
    boxes_only: bool = False
    allow_dropped: bool = False

    def __bool__(self) -> bool:
        """Whether any option is set."""
        return self != Options()

    def inputs(self) -> Iterator[str | Folder]:
        """The files and folders that the options name, for ``utils.outputs.check``."""
        if self.data:
            if os.path.isdir(self.data):
                suffixes = (*images.SUFFIXES, *label_files.SUFFIXES, *FORMAT_SUFFIXES)
                yield Folder(Path(self.data), suffixes)
            else:  # a data.yaml
                yield self.data
        named = [getattr(self, name) for name in _SPLIT_OPTIONS]
        named += [self.color_map, *(self.classes or ())]
        for name in filter(None, named):
            suffixes = (*images.SUFFIXES, *label_files.SUFFIXES)
            yield Folder(Path(name), suffixes) if os.path.isdir(name) else name


def examine(options: Options, scope: str | None = None, seed: int = 0) -> list[Split]:
    """Check the data: the training split and the one to validate on.

    Data without a validation split gets one, drawn from the training images, unless
    it has errors.

    Args:
        scope: 'mmdet' for objects, 'mmseg' for label maps; None takes what the data
            has.
        seed: of the split that is drawn.

    Raises:
        InputError: the data is missing, or a file cannot be read.
    """
    scope, paths = _paths(options, scope)
    other = "mmseg" if scope == "mmdet" else "mmdet"
    for name in _ONLY_FOR[other]:
        if getattr(options, name):
            raise InputError(
                f"--{name.replace('_', '-')} cannot be used with {_DATA_NAMES[scope]}: "
                f"it is for {_DATA_NAMES[other]}"
            )
    splits: list[Split] = []
    splits += (_read_coco if scope == "mmdet" else _read_label_maps)(options, paths)
    if len(splits) == 2:
        for file in same_images(*splits):
            splits[1].problems.add(IN_BOTH, file)
    elif not splits[0].problems.stop:
        if len(splits[0].files) < 2:
            raise InputError(
                f"{paths['train'].annotations} has one image: name a validation "
                f"split too, with --val-{_ANNOTATION_FLAGS[scope]} and --val-images"
            )
        problems = splits[0].problems
        splits = list(draw_split(splits[0], seed))
        splits[0].problems = problems
    return splits


def check_options(options: Options, cfg: Config) -> None:
    """Check that the options name data that exists and suits a config.

    ``prepare`` reads the data; this only looks at its paths.

    Raises:
        InputError: a file or folder does not exist, options contradict each other, or
            the data is for another task than the config.
    """
    _scope_of(options, cfg.default_scope)
    check_task(cfg)
    for name in ("data", *_SPLIT_OPTIONS):
        path = getattr(options, name)
        if path and not os.path.exists(path):
            what = "folder" if name == "data" else "file or folder"
            raise InputError(
                f"{_flag(name)}: there is no {what} {Path(path).absolute()}"
            )


def _flag(name: str) -> str:
    """The flag of an option: --train-json for train_json."""
    return "--" + name.replace("_", "-")


def _scope_of(options: Options, scope: str | None) -> str | None:
    """The scope of the data that the options name; None if only reading tells.

    Args:
        scope: that of the config, or None.

    Raises:
        InputError: the options name no training data, annotations without images or
            the other way round, data of both scopes, or of another than ``scope``.
    """
    named = [name for name in _SPLIT_OPTIONS if getattr(options, name)]
    if options.data:
        if named:
            raise InputError(
                f"--data and {_flag(named[0])} both say where the data is: give one of "
                "them"
            )
        return scope
    flags = {
        candidate: [_flag(name) for name in named if name.endswith(flag)]
        for candidate, flag in _ANNOTATION_FLAGS.items()
    }
    other = "mmseg" if scope == "mmdet" else "mmdet"
    if scope and flags[other]:
        raise InputError(_other_task(scope, other, flags[other][0]))
    if all(flags.values()):
        raise InputError(
            f"{flags['mmdet'][0]} gives a COCO file, and {flags['mmseg'][0]} gives "
            "label maps: give one of them for both splits"
        )
    for candidate, flag in _ANNOTATION_FLAGS.items():
        if f"--train-{flag}" in flags[candidate]:
            _check_pairs(options, flag)
            return candidate
    expected = [scope] if scope else list(_ANNOTATION_FLAGS)
    annotations = " or ".join(f"--train-{_ANNOTATION_FLAGS[name]}" for name in expected)
    raise InputError(
        f"training data: give {annotations} and --train-images, or --data FOLDER"
    )


def _check_pairs(options: Options, flag: str) -> None:
    """Raise an InputError if a split has annotations without images, or images alone.

    Args:
        flag: of the annotations, 'json' or 'labels'.
    """
    for split in ("train", "val"):
        annotations = getattr(options, f"{split}_{flag}")
        if bool(annotations) != bool(getattr(options, f"{split}_images")):
            missing, present = ("images", flag) if annotations else (flag, "images")
            raise InputError(
                f"--{split}-{missing} is missing: give it beside --{split}-{present}"
            )


def _other_task(scope: str, other: str, source: str) -> str:
    """The message about data for another task than the config's.

    Args:
        scope: of the config.
        other: of the data.
        source: where the data is from: a flag, perhaps with its value.
    """
    return (
        f"the config is for {TASK_NAMES[scope]}, and {source} gives "
        f"{_DATA_NAMES[other]}, for {TASK_NAMES[other]}: give "
        f"{_DATA_NAMES[scope]} (--train-{_ANNOTATION_FLAGS[scope]} and "
        f"--train-images), or use a config of configs/{other.removeprefix('mm')}"
    )


def _find_dataset(root: Path, scope: str | None) -> tuple[str, DatasetPaths]:
    """``find_dataset``, with a message about data of the other scope."""
    try:
        return find_dataset(root, scope)
    except InputError as error:
        other = "mmseg" if scope == "mmdet" else "mmdet"
        try:
            has_other = scope is not None and bool(find_dataset(root, other))
        except InputError:
            has_other = False
        if scope is None or not has_other:
            raise
        raise InputError(_other_task(scope, other, f"--data {root}")) from error


def _paths(options: Options, scope: str | None) -> tuple[str, DatasetPaths]:
    """The scope of the data, and the paths of each split."""
    scope = _scope_of(options, scope)
    if options.data:
        return _find_dataset(Path(options.data).absolute(), scope)
    assert scope is not None  # only a folder leaves it open
    flag = _ANNOTATION_FLAGS[scope]
    paths = {}
    for split in ("train", "val"):
        annotations = getattr(options, f"{split}_{flag}")
        images = getattr(options, f"{split}_images")
        if annotations:
            paths[split] = SplitPaths(
                Path(annotations).absolute(), Path(images).absolute()
            )
    return scope, paths


def _read_coco(options: Options, paths: DatasetPaths) -> list[CocoSplit]:
    """Read and check objects; the validation split takes the training classes."""
    readings: dict[str, Reading] = {}
    for name, split_paths in paths.items():
        if split_paths.read:
            readings[name] = split_paths.read()
        else:
            file = split_paths.annotations
            readings[name] = Reading(read_coco(file), f"COCO, {file}")
    splits: list[CocoSplit] = []
    for name, split_paths in paths.items():
        reading = readings[name]
        elsewhere = {
            image_name(entry)
            for other, other_paths in paths.items()
            if other != name and other_paths.images == split_paths.images
            for entry in readings[other].content["images"]
            if isinstance(entry, dict)
        }
        split = coco_check.examine(
            reading.content,
            split_paths.images,
            name,
            splits[0].categories if splits else None,
            options.boxes_only,
            options.allow_dropped,
            None if split_paths.read else elsewhere,
        )
        for problem, where in reading.problems:
            split.problems.add(problem, where)
        split.source = reading.source
        if split_paths.not_read:
            split.source += f"; not read: {split_paths.not_read}"
        splits.append(split)
    return splits


def _read_label_maps(options: Options, paths: DatasetPaths) -> list[LabelSplit]:
    """Read and check label maps; all splits have the same classes.

    Without a list of classes, the label maps of all splits are counted.
    """
    names, colors = ClassList(()), None
    list_file = None
    if options.classes:
        names = class_list(options.classes)
    if options.color_map:
        if options.classes:
            raise InputError(
                "--classes and --color-map both name the classes: give one of them"
            )
        color_map = read_color_map(options.color_map)
        names, colors = ClassList(color_map.classes), color_map.colors
    elif options.data and not options.classes:
        list_file, names, colors = _classes_beside(Path(options.data), paths)
    splits = [
        label_check.read(
            split_paths.images,
            split_paths.annotations,
            name,
            names.classes or None,
            colors,
            zero=not options.reduce_zero_label,
            ids=names.ids,
        )
        for name, split_paths in paths.items()
    ]
    label_check.check(splits, names.classes or None)
    if list_file:
        text = f"{list_file}: {few(names.classes, 5)}"
        splits[0].problems.add(LISTED_CLASSES, text)
    return splits


def _classes_beside(
    root: Path, paths: DatasetPaths
) -> tuple[str | None, ClassList, list[list[int]] | None]:
    """The list of classes or colour map that a tool wrote beside the label maps.

    Returns:
        its path below ``root``, its classes and colours; None, no classes and None
        without such a file.

    Raises:
        InputError: it cannot be read, or there are two with different classes.
    """
    root = root.absolute()
    folders = [root]
    for split_paths in paths.values():
        for folder in (split_paths.annotations, split_paths.images):
            folders += [folder, *(p for p in folder.parents if root in p.parents)]
    lists: dict[str, tuple[ClassList, list[list[int]] | None]] = {}
    for folder in dict.fromkeys(folders):
        for name in (*FILES, *COLOR_FILES):
            file = folder / name
            if not file.is_file():
                continue
            if name in COLOR_FILES:
                color_map = read_color_map(str(file))
                content = ClassList(color_map.classes), color_map.colors
            else:
                content = read_class_list(file), None
            lists[file.relative_to(root).as_posix()] = content
    if not lists:
        return None, ClassList(()), None
    first, content = next(iter(lists.items()))
    for other, other_content in lists.items():
        if other_content != content:
            raise InputError(
                f"--data: {root} has two lists of classes, {first} and {other}: give "
                "one as --classes or --color-map"
            )
    return first, *content


def prepare(
    cfg: Config,
    options: Options,
    epochs: int | None,
    settings: Mapping[str, Any] = {},
) -> None:
    """Check the data, write its splits into the work dir, and fit ``cfg`` to it.

    A run that is resumed keeps the splits with which it began.

    Args:
        epochs: None sizes the schedule from the data.
        settings: of ``--cfg-options``, by their keys with dots; they stay as they are.

    Raises:
        InputError: the data has errors, or does not fit the config.
    """
    check_task(cfg)
    data = on_main(partial(_prepare_files, cfg, options))
    use_data(cfg, data, epochs, settings)


def _prepare_files(cfg: Config, options: Options) -> dict:
    """Write the splits and ``data.json``, and return its content."""
    folder = Path(cfg.work_dir).absolute() / "data"
    data_file = folder / "data.json"
    if cfg.get("resume") and data_file.is_file():
        print_log(
            f"the run keeps the splits with which it began, in {folder}", "current"
        )
        return _read_settings(data_file, cfg.default_scope)
    seed = (cfg.get("randomness") or {}).get("seed") or 0
    splits = examine(options, cfg.default_scope, seed)
    lines = [line for split in splits for line in summary.lines(split)]
    for line in lines:
        print_log(line, "current")
    if any(split.problems.stop for split in splits):
        fix = "; --fix FOLDER writes a cleaned copy of the annotations"
        fixable = all(split.problems.fixable for split in splits)
        raise InputError(
            "the data has errors, see above. convnext-dense inspect-data, with the "
            f"same options and --html FILE shows them on a page{fix if fixable else ''}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    data = _settings(splits)
    for split in splits:
        file = folder / f"{split.name}.json"
        split.write(file)
        data[split.name] = dict(annotations=str(file), images=str(split.folder))
        if isinstance(split, LabelSplit):
            data[split.name]["labels"] = str(split.labels)
    with files.whole(folder / "inspection.txt") as partial_file:
        partial_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    # The last file: where it exists, the others are complete.
    with files.whole(data_file) as partial_file:
        partial_file.write_text(json.dumps(data), encoding="utf-8")
    print_log(f"the splits are in {folder}", "current")
    return data


def _read_settings(file: Path, scope: str) -> dict:
    """The ``data.json`` of a run that is resumed.

    Raises:
        InputError: it cannot be read, or was not written by this module.
    """
    data = read_json(file)
    if not _is_settings(data, scope):
        raise InputError(
            f"{file} is damaged: remove its folder, and the run divides the data again"
        )
    return data


def _is_settings(data: object, scope: str) -> bool:
    """Whether it has what ``_settings`` and ``_prepare_files`` write for a toolbox."""
    match data:
        case {
            "classes": [*classes],
            "images": int(),
            "train": {"annotations": str(), "images": str()} as train,
            "val": {"annotations": str(), "images": str()} as val,
            **others,
        } if all(isinstance(name, str) for name in classes):
            if scope == "mmdet":
                ids, has_masks = others.get("category_ids"), others.get("has_masks")
                return isinstance(ids, list) and isinstance(has_masks, bool)
            labels = train.get("labels"), val.get("labels")
            colors, zero = others.get("colors", 0), others.get("zero")
            return (
                all(isinstance(folder, str) for folder in labels)
                and (colors is None or isinstance(colors, list))
                and isinstance(zero, int)
                and _are_ids(others.get("ids"), len(classes))
            )
    return False


def _are_ids(ids: object, number: int) -> bool:
    """Whether these can be the values of ``number`` classes; None for 0, 1, 2, ..."""
    if not isinstance(ids, list):
        return ids is None
    return len(ids) == number and all(isinstance(value, int) for value in ids)


def _settings(splits: Sequence[Split]) -> dict:
    """What ``use_data`` needs to know of the data, without the paths."""
    train = splits[0]
    data: dict = dict(classes=train.classes, images=len(train.files))
    if isinstance(train, CocoSplit):
        data["category_ids"] = [category["id"] for category in train.categories]
        coco_splits = (split for split in splits if isinstance(split, CocoSplit))
        data["has_masks"] = all(split.has_masks for split in coco_splits)
    elif isinstance(train, LabelSplit):
        data.update(colors=train.colors, zero=train.zero, ids=train.ids)
    return data
