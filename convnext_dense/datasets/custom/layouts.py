"""Where somebody's data is: named file by file, or found in a folder."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convnext_dense.errors import InputError
from convnext_dense.utils.images import list_images

from .label_maps import SUFFIXES

# How tools and people call the folders of a split, of images and of label maps.
SPLITS = {"train": ("train",), "val": ("val", "valid")}
IMAGES = ("images", "image", "imgs", "img", "JPEGImages", "data")
LABELS = (
    *("labels", "label", "masks", "mask", "annotations", "annotation"),
    *("SegmentationClass", "semantic", "seg"),
)
# Files of COCO's that are of other tasks.
OTHER_TASKS = ("caption", "keypoints", "panoptic", "stuff", "image_info")


@dataclass
class Source:
    """One split.

    Attributes:
        annotations: a COCO file, or a folder of label maps.
        images: the folder of images.
    """

    annotations: Path
    images: Path


Sources = dict[str, Source]  # 'train' and, unless it is to be drawn, 'val'


def find(root: Path, scope: str | None = None) -> tuple[str, Sources]:
    """Find a data set in a folder, by what tools for annotating leave there.

    COCO's layout, Roboflow's, CVAT's, FiftyOne's, Pascal VOC's, ADE20K's, and
    whatever names files and folders so.

    Args:
        scope: 'mmdet' or 'mmseg' for what the data is to be; None takes what is
            there, objects first.

    Returns:
        the scope and the sources.

    Raises:
        InputError: there is nothing, or it cannot be told which of several.
    """
    if not root.is_dir():
        raise InputError(f"--data: there is no folder {root}")
    finders = dict(mmdet=_coco, mmseg=_label_maps)
    for task in [scope] if scope else finders:
        found = finders[task](root)
        if found:
            return task, found
    looked_for = dict(
        mmdet="a COCO file (*.json, annotations/*.json, train/*.json) and its images; "
        "name them as --train-json FILE --train-images FOLDER",
        mmseg="folders such as images/ and labels/, with train/ and val/ inside or "
        "outside; name them as --train-images FOLDER --train-labels FOLDER",
    )
    raise InputError(
        f"--data: found no data set in {root}, neither "
        + ", nor ".join(looked_for[task] for task in ([scope] if scope else finders))
    )


def _split_of(name: str) -> str | None:
    """'train' or 'val' if a file's or a folder's name has one of their words."""
    for split, words in SPLITS.items():
        if any(word in name.lower() for word in words):
            return split
    return None


def _coco(root: Path) -> Sources | None:
    files: dict[str | None, list[Path]] = {}
    for file in sorted([*root.glob("*.json"), *root.glob("*/*.json")]):
        name = file.relative_to(root).as_posix()
        if not any(task in name for task in OTHER_TASKS):
            files.setdefault(_split_of(name), []).append(file)
    if "train" not in files and list(files) == [None]:
        files = {"train": files[None]}
    if "train" not in files:
        return None
    sources = {}
    for split in SPLITS:
        there = files.get(split, [])
        if len(there) > 1:
            names = ", ".join(str(file.relative_to(root)) for file in there)
            raise InputError(
                f"--data: {root} has {len(there)} files for {split}: {names}; name one "
                f"as --{split}-json"
            )
        if there:
            sources[split] = Source(there[0], _images_of(there[0], root, split))
    return sources


def _images_of(file: Path, root: Path, split: str) -> Path:
    """The folder with most of the first images that a COCO file names."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        names = [str(image["file_name"]) for image in content["images"][:20]]
    except (ValueError, LookupError, TypeError):
        return file.parent  # what is wrong with the file is said when it is read
    folders = [file.parent, root]
    for parent in dict.fromkeys([file.parent, root]):
        for path in sorted(p for p in parent.iterdir() if p.is_dir()):
            within = sorted(p for p in path.iterdir() if p.is_dir())
            folders += [path, *within]

    def fit(folder: Path):
        there = sum((folder / name).is_file() for name in names)
        return there, _split_of(folder.relative_to(root).as_posix()) == split

    best = max(folders, key=fit)
    if not fit(best)[0]:
        raise InputError(
            f"--data: the images of {file} are in no folder of {root}, such as "
            f"{names[0] if names else 'none'}; name theirs as --{split}-images"
        )
    return best


def _label_maps(root: Path) -> Sources | None:
    sources = {}
    for images, labels in _folder_pairs(root):
        split = _split_of(images.relative_to(root).as_posix()) or "train"
        sources.setdefault(split, Source(labels, images))
    return sources if "train" in sources else None


def _folder_pairs(root: Path) -> Iterator[tuple[Path, Path]]:
    """Folders of images and of label maps that go together, halves of a split first."""
    folders = [path for path in sorted(root.rglob("*")) if path.is_dir()]
    labels = [path for path in folders if _has_part(path, root, LABELS)]
    labels = [path for path in labels if _holds(path, SUFFIXES)]
    for path in sorted(labels, key=lambda p: _split_of(p.name) is None):
        others = [part for part in path.relative_to(root).parts if part not in LABELS]
        for images in folders:
            parts = images.relative_to(root).parts
            alike = [part for part in parts if part not in IMAGES] == others
            apart = images not in labels and images not in path.parents
            if alike and apart and list_images(images):
                yield images, path
                break


def _has_part(path: Path, root: Path, names: tuple[str, ...]) -> bool:
    return any(part in names for part in path.relative_to(root).parts)


def _holds(folder: Path, suffixes: tuple[str, ...]) -> bool:
    return any(p.suffix.lower() in suffixes for p in folder.iterdir())
