"""Finds the folders of images and of label maps in a data set's folder."""

import functools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from convnext_dense.errors import InputError
from convnext_dense.utils.images import list_images
from convnext_dense.utils.text import few

from .label_files import SUFFIXES
from .label_pairs import pair, separate
from .split_paths import IMAGES

# The words by which tools and people name folders of label maps, in small letters.
LABELS = frozenset(
    (
        *("labels", "label", "masks", "mask", "annotations", "annotation", "gtfine"),
        *("segmentationclass", "semantic", "seg", "ann_dir", "masks_machine"),
    )
)
DEPTH = 2  # of the folders that are searched for photographs beside label maps

SplitOf = Callable[[str], str | None]  # the split that the name of a folder names
Pair = tuple[Path, Path]  # a folder of images and one of label maps


def label_map_folders(root: Path, split_of: SplitOf) -> dict[str, Pair]:
    """The folder of label maps and the folder of images of each split.

    Both are one folder where photographs and label maps are together.

    Args:
        split_of: the split, 'train' or 'val', that a relative path names.

    Raises:
        InputError: a split has images in several folders that cannot be read as one.
    """
    pairs = list(_folder_pairs(root, split_of))
    if not pairs:
        pairs = [(folder, folder) for folder in _mixed_folders(root)]
    splits: dict[str, list[Pair]] = defaultdict(list)
    unnamed: list[Pair] = []
    for images, labels in pairs:
        path = images.relative_to(root).as_posix()
        if split := split_of(path):
            splits[split].append((images, labels))
        elif "test" not in path.lower().split("/"):
            unnamed.append((images, labels))
    if unnamed and "train" not in splits:
        splits["train"] = unnamed
    folders = {}
    for split, of_split in splits.items():
        others = [p for other in splits if other != split for p in splits[other]]
        images, labels = _as_one(of_split, others, split)
        folders[split] = labels, images
    return folders


def _as_one(pairs: Sequence[Pair], others: Sequence[Pair], split: str) -> Pair:
    """A folder of images and one of label maps that hold those of all ``pairs``.

    Args:
        others: the folders of the other splits.

    Raises:
        InputError: they would hold those of ``others``, too.
    """
    # Two folders of label maps for the same images: the first is taken.
    first = {images: (images, labels) for images, labels in reversed(pairs)}
    if len(first) == 1:
        return pairs[0]
    images, labels = (
        Path(os.path.commonpath(paths)) for paths in zip(*first.values(), strict=True)
    )
    for other in (folder for other_pair in others for folder in other_pair):
        if {images, labels} & {other, *other.parents}:
            raise InputError(
                f"--data: {split} has images in {len(first)} folders "
                f"({few(sorted(first), 3)}): move them into one, or name it as "
                f"--{split}-images and --{split}-labels"
            )
    return images, labels


def _folder_pairs(root: Path, split_of: SplitOf) -> Iterator[Pair]:
    """Pairs of a folder of images and one of label maps that belong together.

    Folders whose own name is that of a split come first. Of folders of one name, such
    as a city's, the folders above them are taken, if they have no split's name.
    """
    folders = [path for path in sorted(root.rglob("*")) if path.is_dir()]
    labels = [path for path in folders if _has_label_word(path, root)]
    labels = [path for path in labels if _has_label_maps(path)]

    def others(path: Path, left_out: frozenset[str]) -> tuple[str, ...]:
        *above, name = (part.lower() for part in path.relative_to(root).parts)
        last = (
            [] if name in left_out else [w for w in _words(name) if w not in left_out]
        )
        return (*(part for part in above if part not in left_out), *last)

    # Looked up, not compared: a folder may have thousands below it.
    alike: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in folders:
        alike[others(path, IMAGES)].append(path)
    apart = set(folders) - set(labels)
    has_images = functools.cache(lambda path: bool(list_images(path)))
    known: set[Pair] = set()
    for path in sorted(labels, key=lambda p: split_of(p.name) is None):
        for images in alike[others(path, LABELS)]:
            if images in apart and images not in path.parents and has_images(images):
                lifted = _lifted(images, path, split_of)
                if lifted not in known:
                    yield lifted
                known.add(lifted)
                break


def _lifted(images: Path, labels: Path, split_of: SplitOf) -> Pair:
    """The folders above two folders of one name that is not a split's."""
    while images.name == labels.name and images.parent != labels.parent:
        if split_of(images.name) or images.name.lower() == "test":
            break
        images, labels = images.parent, labels.parent
    return images, labels


def _mixed_folders(root: Path) -> Iterator[Path]:
    """Folders in which at least half of the photographs have a label map."""
    level = [root]
    for _ in range(DEPTH + 1):
        for folder in level:
            names = [path.name for path in _entries(folder)]
            images, maps = separate(n for n in names if not n.startswith("."))
            if not maps:
                continue
            try:
                paired = len(pair(images, maps).pairs)
            except InputError:  # reading the folder reports it
                paired = len(images)
            if paired and 2 * paired >= len(images):
                yield folder
        level = sorted(p for f in level for p in _entries(f) if p.is_dir())


def _has_label_word(path: Path, root: Path) -> bool:
    """Whether a folder, or one between it and ``root``, is named after label maps.

    Its own name may have more words: 'train_masks', 'masks_png'.
    """
    names = [name.lower() for name in path.relative_to(root).parts]
    return not LABELS.isdisjoint([*names, *_words(names[-1])])


def _words(name: str) -> list[str]:
    return re.split(r"[\W_]+", name)


def _has_label_maps(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in _entries(folder))


def _entries(folder: Path) -> list[Path]:
    """What a folder contains; nothing if it may not be read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []
