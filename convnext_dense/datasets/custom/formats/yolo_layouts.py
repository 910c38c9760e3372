"""Finds YOLO's images, label files and classes, from a data.yaml or by their names.

Three layouts are read: a data.yaml (Ultralytics, Roboflow, FiftyOne, CVAT), an
obj.data with lists of images (darknet, CVAT's "YOLO 1.1"), and folders with a
classes.txt (Label Studio, labelImg, Roboflow's darknet export).
"""

import os
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path

from convnext_dense.errors import InputError
from convnext_dense.utils.files import read_text
from convnext_dense.utils.text import few
from convnext_dense.utils.yaml_files import parse_yaml

from ..split_paths import DatasetPaths, SplitPaths, split_of
from . import yolo
from .tree import Tree, by_split, common, is_image, list_tree

NAME = "YOLO"
YAML_SUFFIXES = (".yaml", ".yml")
# What a data.yaml calls its splits.
_KEYS = {"train": ("train",), "val": ("val", "valid", "validation")}
# Files with the name of a class on each line.
CLASS_FILES = (
    *("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt"),
    *("class_names.txt", "names.txt"),
)


def find(root: Path, tree: Tree) -> DatasetPaths | None:
    """The splits of a folder, or None if it has no YOLO data.

    Raises:
        InputError: there are several data.yaml; or what one names is not there; or no
            file names the classes.
    """
    descriptions = [
        root / name
        for name in tree[root]
        if name.lower().endswith(YAML_SUFFIXES) and is_description(root / name)
    ]
    if len(descriptions) > 1:
        names = few((file.name for file in descriptions), 8)
        raise InputError(
            f"--data: {root} has {len(descriptions)} files that describe YOLO data: "
            f"{names}; name one as --data {descriptions[0]}"
        )
    if descriptions:
        return from_yaml(descriptions[0])
    return _from_lists(root, tree) or _from_folders(root, tree)


def is_description(file: Path) -> bool:
    """Whether a YAML file describes YOLO data."""
    try:
        content = _read_yaml(file)
    except InputError:
        return False
    keys = [key for split_keys in _KEYS.values() for key in split_keys]
    return "names" in content and any(key in content for key in keys)


def from_yaml(file: Path) -> DatasetPaths:
    """The splits that a data.yaml describes.

    Raises:
        InputError: it is no such file, names no classes or no training images, or what
            it names is not there.
    """
    content = _read_yaml(file)
    names = _class_names(content, file)
    keypoints = _keypoints(content, file)
    folder = file.absolute().parent
    stated = content.get("path")
    bases = [folder]
    if isinstance(stated, str):
        # Where it is not there, it may be a path of the machine that wrote the file.
        bases = [Path(os.path.normpath(folder / stated)), folder]
    paths = {}
    for split, keys in _KEYS.items():
        entry = next((content[key] for key in keys if content.get(key)), None)
        if entry is None:
            continue
        entries = entry if isinstance(entry, list) else [entry]
        if not all(isinstance(entry, str) for entry in entries):
            raise InputError(
                f"{file}: {split} is neither a folder nor a list of images"
            )
        images = [
            image
            for entry in entries
            for image in _images_of(entry, bases, f"{file}: {split}")
        ]
        paths[split] = _split(images, names, folder, file, keypoints)
    if "train" not in paths:
        raise InputError(f"{file} names no training images: add a line train: FOLDER")
    return paths


def _read_yaml(file: Path) -> Mapping:
    """The content of a YAML file, as plain values.

    Raises:
        InputError: it cannot be read, or is no YAML of names and values.
    """
    text = read_text(file)
    content = parse_yaml(text, str(file))
    if isinstance(content, dict) and "names" in content:
        content["names"] = parse_yaml(text, str(file), as_text=True)["names"]
    if not isinstance(content, dict):
        raise InputError(f"{file} is not a data.yaml: it has no names: and train:")
    return content


def _class_names(content: Mapping, file: Path) -> list[str]:
    """The names of the classes, by index.

    Raises:
        InputError: there are none, or their indices have gaps.
    """
    names = content.get("names")
    if isinstance(names, str) and (file.parent / names).is_file():
        return _read_names(file.parent / names)
    if isinstance(names, dict):
        try:
            numbered = {int(key): name for key, name in names.items()}
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{file}: names has a key that is no class index: write 0: NAME, ..."
            ) from error
        missing = sorted(set(range(len(numbered))) - set(numbered))
        if missing or len(numbered) != len(names):
            raise InputError(
                f"{file}: names has no class {few(missing) or 'for some key'}: write "
                "each of 0, 1, ... once"
            )
        names = [numbered[i] for i in range(len(numbered))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{file} names no classes: add names: [NAME, ...]")
    number = content.get("nc")
    if isinstance(number, int) and number != len(names):
        raise InputError(
            f"{file} has nc: {number}, and {len(names)} names: correct one of them"
        )
    return [str(name) for name in names]


def _keypoints(content: Mapping, file: Path) -> int:
    """How many numbers of keypoints follow each box; 0 without keypoints."""
    match content.get("kpt_shape"):
        case None:
            return 0
        case [int(points), 2 | 3 as each] if points > 0:
            return points * each
    raise InputError(f"{file}: kpt_shape is not [number of keypoints, 2 or 3]")


def _images_of(entry: str, bases: list[Path], where: str) -> list[Path]:
    """The images that an entry names: those in a folder, or in a list.

    Raises:
        InputError: nothing of that name is there, or there are no images.
    """
    entry = entry.replace("\\", "/")
    candidates = _candidates(entry, bases)
    path = next((p for p in candidates if p.exists()), None)
    if path is None:
        tried = few(dict.fromkeys(candidates), 4)
        raise InputError(
            f"{where} names {entry}, which is not there (looked for {tried}): correct "
            "the line, or path:"
        )
    if path.is_dir():
        images = _images_below(list_tree(path))
        if not images:
            raise InputError(f"{where} names {path}, which has no images")
        return images
    return _listed_images(path, bases, where)


def _images_below(tree: Tree) -> list[Path]:
    return [folder / name for folder in tree for name in tree[folder] if is_image(name)]


def _listed_images(file: Path, bases: list[Path], where: str) -> list[Path]:
    """The images that a text file lists, one a line.

    Raises:
        InputError: it lists none.
    """
    lines = [line.strip().replace("\\", "/") for line in read_text(file).splitlines()]
    lines = [line for line in lines if line]
    if not lines or not any(is_image(line) for line in lines):
        raise InputError(f"{where}: {file} lists no images")
    bases = list(dict.fromkeys([file.parent, *bases]))
    images = []
    for line in dict.fromkeys(lines):
        candidates = _candidates(line, bases)
        # If there is none, the check of images reports the first.
        image = next((path for path in candidates if path.is_file()), candidates[0])
        images.append(image)
    return images


def _candidates(name: str, bases: list[Path]) -> list[Path]:
    """Where a file or folder may be: below a folder, by all or the end of its name.

    Roboflow writes ../train/images for train/images, CVAT writes data/ before its own
    folders, and others write paths of their machine. At least two parts must fit.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    ends = ["/".join(parts[i:]) for i in range(1, len(parts) - 1)]
    return [
        Path(os.path.normpath(base / end)) for end in (name, *ends) for base in bases
    ]


def _split(
    images: list[Path],
    names: list[str],
    root: Path,
    described: Path,
    keypoints: int = 0,
) -> SplitPaths:
    images = list(dict.fromkeys(images))
    read = partial(yolo.read, images, names, root, keypoints)
    return SplitPaths(described, common(image.parent for image in images), read)


def _from_lists(root: Path, tree: Tree) -> DatasetPaths | None:
    """The splits of an obj.data, or of train.txt and val.txt beside a list of classes.

    Raises:
        InputError: a list has no images, or no file names the classes.
    """
    lists: dict[str, Path] = {}
    for split in _KEYS:
        for name in tree[root]:
            file = root / name
            stem, suffix = os.path.splitext(name)
            if suffix == ".txt" and split_of(stem) == split and _lists_images(file):
                lists.setdefault(split, file)
    if not lists:
        return None
    if "train" not in lists:
        if len(lists) > 1:
            return None
        lists = {"train": next(iter(lists.values()))}
    paths = {}
    for split, file in lists.items():
        images = _listed_images(file, [root], str(file))
        if not any(yolo.is_label_file(yolo.label_file(image)) for image in images):
            return None
        names, described = _named_classes([root], root)
        paths[split] = _split(images, names, root, described)
    return paths


def _lists_images(file: Path) -> bool:
    try:
        first = read_text(file).strip().partition("\n")[0].strip()
    except InputError:
        return False
    return is_image(first)


def _from_folders(root: Path, tree: Tree) -> DatasetPaths | None:
    """The splits by the names of folders.

    Raises:
        InputError: no file names the classes.
    """
    if not any(name.endswith(".txt") for names in tree.values() for name in names):
        return None
    images_in: dict[Path, list[Path]] = {}
    folders = set()
    for folder, names in tree.items():
        images = [folder / name for name in names if is_image(name)]
        labels = [yolo.label_file(image) for image in images]
        texts = [file for file in labels if file.name in tree.get(file.parent, ())]
        if any(yolo.is_label_file(file) for file in texts[:20]):
            images_in[folder] = images
            folders |= {folder, *(file.parent for file in texts)}
    splits = by_split(images_in, root, "YOLO data")
    if "train" not in splits:
        return None
    names, described = _named_classes([root, *sorted(folders)], root)
    return {
        split: _split(list(chain.from_iterable(images)), names, root, described)
        for split, images in splits.items()
    }


def _named_classes(folders: Iterable[Path], root: Path) -> tuple[list[str], Path]:
    """The names of the classes, and the file that has them.

    Raises:
        InputError: there is no such file, or several have other names.
    """
    candidates: dict[Path, list[str]] = {}
    for folder in folders:
        for parent in (folder, folder.parent):
            if parent.is_relative_to(root):
                for name in CLASS_FILES:
                    if (file := parent / name).is_file():
                        candidates[file] = _read_names(file)
    if not candidates:
        raise InputError(
            f"--data: {root} has YOLO label files, and no data.yaml, "
            f"{' or '.join(CLASS_FILES[:3])} that names the classes: write "
            f"{root / CLASS_FILES[0]} with a name on each line, that of class 0 first"
        )
    first = next(iter(candidates))
    for file, names in candidates.items():
        if names != candidates[first]:
            raise InputError(
                f"--data: {first} and {file} name different classes: remove one of them"
            )
    return candidates[first], first


def _read_names(file: Path) -> list[str]:
    """The names in a file, one a line.

    Raises:
        InputError: it has none.
    """
    names = [line.strip() for line in read_text(file).splitlines()]
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise InputError(
            f"{file} is empty or has an empty line: write the name of a class on each "
            "line"
        )
    return names
