"""Finds the annotations and images of each split in a data set's folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from convnext_dense.errors import InputError
from convnext_dense.utils.json_files import read_json
from convnext_dense.utils.text import few

from .label_layouts import label_map_folders

# The words by which tools and people name the files and folders of a split.
SPLITS = {"train": ("train",), "val": ("val", "valid")}
# COCO's names for files of other tasks, which are not read.
OTHER_TASKS = ("caption", "keypoints", "panoptic", "stuff", "image_info")
PROBED = 20  # images of a COCO file that are looked for in each folder


@dataclass
class SplitPaths:
    """Where the data of one split is.

    Attributes:
        annotations: a COCO file, or a folder of label maps.
        images: the folder of images.
    """

    annotations: Path
    images: Path


# Keys are 'train' and, unless a validation split must be drawn, 'val'.
DatasetPaths = dict[str, SplitPaths]


def find_dataset(root: Path, scope: str | None = None) -> tuple[str, DatasetPaths]:
    """Find a data set in a folder.

    It may have the layout of COCO, Roboflow, CVAT, FiftyOne, Pascal VOC or ADE20K, or
    any other with the words of this module in the names of files and folders.

    Args:
        scope: 'mmdet' for objects, 'mmseg' for label maps; None takes what the folder
            has, objects first.

    Returns:
        the scope, and the paths of each split.

    Raises:
        InputError: the folder has no data set, or several files for one split.
    """
    if not root.is_dir():
        raise InputError(f"--data: there is no folder {root}")
    finders = dict(mmdet=_coco, mmseg=_label_maps)
    scopes = [scope] if scope else list(finders)
    for candidate in scopes:
        paths = finders[candidate](root)
        if paths:
            return candidate, paths
    expected = dict(
        mmdet="a COCO file (*.json, annotations/*.json, train/*.json) and its images; "
        "name them as --train-json FILE --train-images FOLDER",
        mmseg="folders such as images/ and labels/, with train/ and val/ inside or "
        "outside; name them as --train-images FOLDER --train-labels FOLDER",
    )
    raise InputError(
        f"--data: found no data set in {root}, neither "
        + ", nor ".join(expected[candidate] for candidate in scopes)
    )


def _split_of(name: str) -> str | None:
    """'train' or 'val', if the name of a file or folder has one of its words."""
    for split, words in SPLITS.items():
        if any(word in name.lower() for word in words):
            return split
    return None


def _coco(root: Path) -> DatasetPaths | None:
    """The COCO files in a folder, with their images; None without a training file."""
    files: dict[str | None, list[Path]] = {}
    for file in sorted([*root.glob("*.json"), *root.glob("*/*.json")]):
        name = file.relative_to(root).as_posix()
        if not any(task in name for task in OTHER_TASKS):
            files.setdefault(_split_of(name), []).append(file)
    if "train" not in files and list(files) == [None]:
        files = {"train": files[None]}
    if "train" not in files:
        return None
    paths = {}
    for split in SPLITS:
        candidates = files.get(split, [])
        if len(candidates) > 1:
            names = few((file.relative_to(root) for file in candidates), 8)
            raise InputError(
                f"--data: {root} has {len(candidates)} files for {split}: {names}; "
                f"name one as --{split}-json"
            )
        for file in candidates:
            paths[split] = SplitPaths(file, _images_of(file, root, split))
    return paths


def _images_of(file: Path, root: Path, split: str) -> Path:
    """The folder that has most of the first images that a COCO file names."""
    try:
        images = read_json(file)["images"][:PROBED]
        names = [image["file_name"] for image in images]
    except (InputError, LookupError, TypeError):
        return file.parent  # reading the file reports what is wrong with it
    names = [name for name in names if isinstance(name, str)]
    folders = [file.parent, root]
    for parent in dict.fromkeys([file.parent, root]):
        for path in _folders_in(parent):
            folders += [path, *_folders_in(path)]

    def fit(folder: Path) -> tuple[int, bool]:
        images = sum(os.path.isfile(folder / name) for name in names)
        return images, _split_of(folder.relative_to(root).as_posix()) == split

    best = max(folders, key=fit)
    if not fit(best)[0]:
        raise InputError(
            f"--data: no folder of {root} has the images of {file}, such as "
            f"{names[0] if names else 'none'}; name their folder as --{split}-images"
        )
    return best


def _label_maps(root: Path) -> DatasetPaths | None:
    """Folders of label maps and their images; None without a training split."""
    folders = label_map_folders(root, _split_of)
    paths = {split: SplitPaths(*pair) for split, pair in folders.items()}
    return paths if "train" in paths else None


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in _entries(folder) if path.is_dir())


def _entries(folder: Path) -> list[Path]:
    """What a folder contains; nothing if it may not be read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []
