"""The files of a data set's folder, listed once, and what is found among them."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from convnext_dense.errors import InputError
from convnext_dense.utils.images import SUFFIXES
from convnext_dense.utils.text import few

from ..split_paths import split_of

PROBED = 50  # files of a folder that are looked at to recognise it

T = TypeVar("T")
# The names of the files in each folder at or below the data set's.
Tree = Mapping[Path, Sequence[str]]


def list_tree(root: Path) -> Tree:
    """The folders and files below a folder, also behind links, without hidden ones."""
    tree: dict[Path, list[str]] = {}
    visited = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:  # a link leads to a folder above
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(f for f in folders if f[0] != "." and f != "__MACOSX")
        tree[Path(parent)] = sorted(name for name in names if name[0] != ".")
    return tree


def is_image(name: str) -> bool:
    """Whether a file's name ends as that of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def images_by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """The images among the names of files, by their names without an ending."""
    images = defaultdict(list)
    for name in names:
        if is_image(name):
            images[os.path.splitext(name)[0]].append(name)
    return images


@dataclass
class AnnotatedFolder:
    """A folder with an annotation file for each image.

    Attributes:
        files: the annotation files.
        images: the folder of their images.
        listed: the names, without an ending, that a list of the split has; None takes
            all files.
    """

    files: list[Path]
    images: Path
    listed: list[str] | None = None


def annotated_folders(
    tree: Tree, suffix: str, recognise: Callable[[Path], bool]
) -> dict[Path, AnnotatedFolder]:
    """The folders with an annotation file of a format for each image.

    Args:
        suffix: of these files.
        recognise: whether a file is of the format.
    """
    stems = {folder: images_by_stem(names) for folder, names in tree.items()}
    annotated = {}
    for folder, names in tree.items():
        files = [folder / n for n in names if n.lower().endswith(suffix)]
        if files and any(recognise(file) for file in files[:3]):
            images = _folder_of_images(folder, files, stems)
            annotated[folder] = AnnotatedFolder(files, images)
    return annotated


def _folder_of_images(
    folder: Path, files: list[Path], stems: Mapping[Path, Mapping[str, list[str]]]
) -> Path:
    """The folder that has images of most files' names; among equals the nearest."""
    step = max(1, len(files) // PROBED)
    names = [file.stem for file in files[::step]]

    def fit(candidate: Path) -> tuple[int, int]:
        shared = len(os.path.commonpath([folder, candidate]))
        return sum(name in stems[candidate] for name in names), shared

    if fit(folder)[0] == len(names):  # the usual case, which looks at no other folder
        return folder
    with_images = [candidate for candidate in stems if stems[candidate]]
    best = max(with_images, key=fit, default=folder)
    return best if fit(best) > fit(folder) else folder


def by_split(folders: Mapping[Path, T], root: Path, what: str) -> dict[str, list[T]]:
    """Divide what folders have into the training and the validation split.

    Folders without a word for a split are for training.

    Args:
        folders: what each folder has.
        what: the format, for messages.

    Raises:
        InputError: some folders are named after the training split and others after
            none.
    """
    splits: dict[str | None, list[Path]] = defaultdict(list)
    for folder in folders:
        splits[split_of(folder.relative_to(root))].append(folder)
    if splits.get("train") and splits.get(None):
        others = few(folder.relative_to(root) for folder in splits[None])
        raise InputError(
            f"--data: {root} has {what} in folders of the training split, and in "
            f"{others}, whose split is not known: move those into a folder "
            "train or val, or out of the data set"
        )
    chosen = dict(
        train=splits.get("train") or splits.get(None) or [], val=splits.get("val") or []
    )
    return {
        split: [folders[path] for path in paths]
        for split, paths in chosen.items()
        if paths
    }


def stems_in(folder: Path) -> dict[str, list[str]]:
    """``images_by_stem`` of a folder; empty if it may not be read."""
    try:
        return images_by_stem(path.name for path in folder.iterdir() if path.is_file())
    except OSError:
        return {}


def without_file(folders: Iterable[AnnotatedFolder], used: set[Path]) -> list[Path]:
    """The images in the folders of images that no annotation file is of.

    Where a list says which images are in the split, the others are in none.

    Args:
        used: the images of which a file is.
    """
    named: dict[Path, set[str]] = defaultdict(set)
    for folder in folders:
        if folder.listed is None:
            named[folder.images].update(file.stem for file in folder.files)
    return [
        images / name
        for images, stems in named.items()
        for stem, names in stems_in(images).items()
        if stem not in stems
        for name in names
        if images / name not in used
    ]


def common(folders: Iterable[Path]) -> Path:
    """The folder that has all folders below it."""
    return Path(os.path.commonpath(list(folders)))


def image_of(
    file: Path, named: str, images: Path, stems: Mapping[str, list[str]]
) -> tuple[Path | None, bool]:
    """The image of an annotation file.

    It has the file's name, or the one inside the file, without the folders of the
    machine on which that was written. Tools that rename images often leave the name
    inside the file as it was.

    Args:
        named: the name inside the file; '' without one.
        images: the folder of images.
        stems: ``images_by_stem`` of the folder.

    Returns:
        the image, or None; and whether two images fit.
    """
    inside = named.replace("\\", "/").rsplit("/", 1)[-1]
    same = stems.get(file.stem, [])
    if inside in same or (not same and inside and os.path.isfile(images / inside)):
        return images / inside, False
    relative = named.replace("\\", "/")
    if not same and relative and os.path.isfile(file.parent / relative):
        return Path(os.path.normpath(file.parent / relative)), False
    if not same:
        return None, False
    other = bool(inside) and os.path.isfile(images / inside)
    if other or len(same) > 1:
        return None, True
    return images / same[0], False
