"""Finds the annotations and images of each split in a data set's folder."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from convnext_dense.errors import InputError
from convnext_dense.utils import annotation_formats
from convnext_dense.utils.json_files import read_json
from convnext_dense.utils.text import few

from .coco_entries import image_name
from .formats import FORMATS
from .formats.tree import list_tree
from .formats.yolo_layouts import YAML_SUFFIXES, from_yaml
from .image_names import ImageNames
from .label_layouts import label_map_folders
from .split_paths import DatasetPaths, SplitPaths, split_of, words_of

__all__ = ["DatasetPaths", "SplitPaths", "find_dataset"]

# COCO's words for files of other tasks, which are not read.
OTHER_TASKS = {"caption", "captions", "keypoints", "panoptic", "stuff"}
PROBED = 20  # images of a COCO file that are looked for in each folder
# JSON files of a folder that are looked at, where each image has its own.
RECOGNISED = 5


def find_dataset(root: Path, scope: str | None = None) -> tuple[str, DatasetPaths]:
    """Find a data set in a folder.

    It may have the layout of COCO, Roboflow, CVAT, FiftyOne, Pascal VOC or ADE20K, or
    any other with the words of this module in the names of files and folders. Objects
    may be in COCO files, or in the formats of ``formats``.

    Args:
        root: the folder, or a data.yaml.
        scope: 'mmdet' for objects, 'mmseg' for label maps; None takes what the folder
            has, objects first.

    Returns:
        the scope, and the paths of each split.

    Raises:
        InputError: the folder has no data set, or several files for one split.
    """
    if not root.is_dir():
        return "mmdet", _described(root, scope)
    root = _inner(root)
    finders = dict(mmdet=_objects, mmseg=_label_maps)
    scopes = [scope] if scope else list(finders)
    for candidate in scopes:
        paths = finders[candidate](root)
        if paths:
            return candidate, paths
    # Other JSON files: reading them tells what is wrong. Label maps may have some.
    if "mmdet" in scopes and (paths := _coco(root, os.path.exists)):
        return "mmdet", paths
    expected = dict(
        mmdet="a COCO file (*.json, annotations/*.json, train/*.json) and its images; "
        "name them as --train-json FILE --train-images FOLDER",
        mmseg="folders such as images/ and labels/, with train/ and val/ inside or "
        "outside; name them as --train-images FOLDER --train-labels FOLDER",
    )
    recognised = annotation_formats.of_folder(root) if "mmdet" in scopes else None
    if recognised and recognised.is_read:
        raise InputError(
            f"--data: found no training split in {root}. {recognised.path} is "
            f"{recognised.name}: put the training data into a folder train"
        )
    if recognised:
        raise InputError(f"--data: found no data set in {root}. {recognised}")
    raise InputError(
        f"--data: found no data set in {root}, neither "
        + ", nor ".join(expected[candidate] for candidate in scopes)
        + ("; YOLO, Pascal VOC and labelme are read too" if "mmdet" in scopes else "")
    )


def _inner(root: Path) -> Path:
    """The folder in which an archive was unpacked, if that is all there is."""
    entries = [path for path in _entries(root) if path.name[0] not in "._"]
    while len(entries) == 1 and entries[0].is_dir():
        root = entries[0]
        entries = [path for path in _entries(root) if path.name[0] not in "._"]
    return root


def _described(file: Path, scope: str | None) -> DatasetPaths:
    """The splits that a file describes: a data.yaml.

    Raises:
        InputError: it is another file, or not there.
    """
    if not os.path.lexists(file):
        raise InputError(f"--data: there is no folder {file}")
    if file.suffix.lower() in YAML_SUFFIXES and scope != "mmseg":
        return from_yaml(file)
    advice = f"give its folder: --data {file.parent}"
    if file.suffix.lower() == ".json" and scope != "mmseg":
        advice = (
            f"give a COCO file as --train-json {file} --train-images FOLDER, or a "
            "folder as --data FOLDER"
        )
    recognised = annotation_formats.of_file(file)
    if recognised:
        raise InputError(f"--data: {recognised}")
    raise InputError(f"--data: {file} is a file, not a folder: {advice}")


def _objects(root: Path) -> DatasetPaths | None:
    """The splits of the first format that the folder has: COCO, then the others.

    Raises:
        InputError: the data of this format cannot be divided into splits.
    """
    tree = list_tree(root)
    first = _coco(root, annotation_formats.may_be_coco)
    others = []
    for module in FORMATS:
        try:
            paths = module.find(root, tree)
        except InputError:
            if first is None:
                raise
            others.append(module.NAME)
            continue
        if first is None:
            first = paths
        elif paths:
            where = os.path.relpath(paths["train"].annotations, root)
            others.append(f"{module.NAME} ({where})")
    for split_paths in (first or {}).values():
        split_paths.not_read = ", ".join(filter(None, [split_paths.not_read, *others]))
    return first


def _coco(root: Path, accept: Callable[[Path], bool]) -> DatasetPaths | None:
    """The COCO files in a folder, with their images; None without a training file.

    Args:
        accept: whether a JSON file is looked at.
    """
    files: dict[str | None, list[Path]] = {}
    for folder in [root, *_folders_in(root)]:
        for file in filter(accept, _coco_files(folder)):
            files.setdefault(split_of(file.relative_to(root)), []).append(file)
    if "train" not in files and not files.keys() - {None, "test"}:
        # The only file, whatever its name.
        files = {"train": files.get(None) or files.get("test", [])}
    if not files.get("train"):
        return None
    others = [file for split in (None, "test") for file in files.get(split, [])]
    not_read = few((file.relative_to(root) for file in others), 8)
    paths = {}
    for split in ("train", "val"):
        candidates = files.get(split, [])
        if len(candidates) > 1:
            names = few((file.relative_to(root) for file in candidates), 8)
            raise InputError(
                f"--data: {root} has {len(candidates)} files for {split}: {names}; "
                f"name one as --{split}-json"
            )
        for file in candidates:
            images = _images_of(file, root, split)
            paths[split] = SplitPaths(file, images, not_read=not_read)
    return paths


def _coco_files(folder: Path) -> list[Path]:
    """The JSON files in a folder that are not known to be of another format or task."""
    files = sorted(p for p in _entries(folder) if p.suffix.lower() == ".json")
    files = [file for file in files if not _of_other_task(file.stem)]
    # A file for each image: if the first ones are not COCO files, none is.
    if len(files) > RECOGNISED and all(
        map(annotation_formats.of_file, files[:RECOGNISED])
    ):
        return []
    return [file for file in files if not annotation_formats.of_file(file)]


def _of_other_task(stem: str) -> bool:
    """Whether a file is named as COCO's files of other tasks."""
    words = words_of(stem)
    return (
        bool(OTHER_TASKS.intersection(words))
        or re.match("image_info", stem) is not None
    )


def _images_of(file: Path, root: Path, split: str) -> Path:
    """The folder that has most of the first images that a COCO file names.

    Only where no folder has files of just these names, names are compared as
    ``ImageNames`` does: with other capitals, of another machine, URLs.

    Raises:
        InputError: no folder has any of these images.
    """
    try:
        images = read_json(file)["images"][:PROBED]
        names = [name for image in images if (name := image_name(image))]
    except (InputError, LookupError, TypeError, AttributeError):
        return file.parent  # reading the file reports what is wrong with it
    folders = [file.parent, root]
    for parent in dict.fromkeys([file.parent, root]):
        for path in _folders_in(parent):
            folders += [path, *_folders_in(path)]

    def fit(folder: Path) -> tuple[int, bool]:
        images = sum(os.path.isfile(folder / name) for name in names)
        return images, split_of(folder.relative_to(root)) == split

    def fit_other_names(folder: Path) -> tuple[int, bool, int, int]:
        images = ImageNames(folder)
        fitting = sum(images.find(name).file is not None for name in names)
        is_of_split = split_of(folder.relative_to(root)) == split
        # Folders above the images fit, too: the innermost is the best.
        return fitting, is_of_split, -len(images.files), len(folder.parts)

    best = max(folders, key=fit)
    if not fit(best)[0]:
        fits = {folder: fit_other_names(folder) for folder in folders}
        best = max(folders, key=fits.__getitem__)
        if fits[best][0]:
            return best
        raise InputError(
            f"--data: no folder of {root} has the images of {file}, such as "
            f"{names[0] if names else 'none'}; name their folder as --{split}-images"
        )
    return best


def _label_maps(root: Path) -> DatasetPaths | None:
    """Folders of label maps and their images; None without a training split."""
    folders = label_map_folders(root, split_of)
    paths = {
        split: SplitPaths(*pair) for split, pair in folders.items() if split != "test"
    }
    return paths if "train" in paths else None


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in _entries(folder) if path.is_dir())


def _entries(folder: Path) -> list[Path]:
    """What a folder contains; nothing if it may not be read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []
