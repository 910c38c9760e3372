"""Finds the folders of images and of label maps in a data set's folder."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from convnext_dense.utils.images import list_images

from .label_maps import SUFFIXES

# The words by which tools and people name the folders of images and of label maps.
IMAGES = ("images", "image", "imgs", "img", "JPEGImages", "data")
LABELS = (
    *("labels", "label", "masks", "mask", "annotations", "annotation"),
    *("SegmentationClass", "semantic", "seg"),
)

SplitOf = Callable[[str], str | None]  # the split that the name of a folder names


def label_map_folders(root: Path, split_of: SplitOf) -> dict[str, tuple[Path, Path]]:
    """The folder of label maps and the folder of images of each split.

    Args:
        split_of: the split, 'train' or 'val', that a relative path names.
    """
    splits: dict[str, tuple[Path, Path]] = {}
    for images, labels in _folder_pairs(root, split_of):
        split = split_of(images.relative_to(root).as_posix()) or "train"
        splits.setdefault(split, (labels, images))
    return splits


def _folder_pairs(root: Path, split_of: SplitOf) -> Iterator[tuple[Path, Path]]:
    """Pairs of a folder of images and one of label maps that belong together.

    Folders whose own name is that of a split come first.
    """
    folders = [path for path in sorted(root.rglob("*")) if path.is_dir()]
    labels = [path for path in folders if _has_label_word(path, root)]
    labels = [path for path in labels if _has_label_maps(path)]

    def others(path: Path, left_out: Sequence[str]) -> tuple[str, ...]:
        names = path.relative_to(root).parts
        return tuple(name for name in names if name not in left_out)

    # Looked up, not compared: a folder may have thousands below it.
    alike: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in folders:
        alike[others(path, IMAGES)].append(path)
    apart = set(folders) - set(labels)
    has_images = functools.cache(lambda path: bool(list_images(path)))
    for path in sorted(labels, key=lambda p: split_of(p.name) is None):
        for images in alike[others(path, LABELS)]:
            if images in apart and images not in path.parents and has_images(images):
                yield images, path
                break


def _has_label_word(path: Path, root: Path) -> bool:
    """Whether a folder, or one between it and ``root``, is named after label maps."""
    return any(name in LABELS for name in path.relative_to(root).parts)


def _has_label_maps(folder: Path) -> bool:
    try:
        return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
    except OSError:  # it may not be read
        return False
