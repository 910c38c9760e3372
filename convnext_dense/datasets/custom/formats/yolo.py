"""Reads YOLO's label files: a line for each object, of a class and fractions.

A line is ``class x-center y-center width height``, or ``class x1 y1 x2 y2 x3 y3 ...``
for a polygon. The numbers are fractions of the image's width and height, as viewers
show the image (https://docs.ultralytics.com/datasets/detect and /segment).
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from convnext_dense.errors import InputError
from convnext_dense.utils.files import read_text
from convnext_dense.utils.images import for_all, unnamed

from ..problems import dropped, error
from .content import BAD_FILE, NO_IMAGE, Content, Reading, bounds, size_of
from .tree import common, images_by_stem

BAD_LINE = dropped(
    "lines of label files that cannot be read",
    "a line is: class x-center y-center width height, or class x1 y1 x2 y2 x3 y3 ..., "
    "in fractions of the image",
)
NO_CLASS = dropped(
    "lines of label files whose class has no name",
    "classes count from 0: correct the lines, or add the names to the list of classes",
)
NO_LABELS = error(
    "images without a label file, more than half of the split",
    "name label files as their images; an image without objects has an empty file",
    fix="keeps them as images without objects",
)

# By which fractions may lie outside 0 to 1: tools round.
TOLERANCE = 0.01
# Text files beside label files that are none.
OTHER_FILES = {"classes", "labels", "train", "val", "valid", "test", "notes", "images"}


def label_file(image: Path) -> Path:
    """Where the label file of an image is: Ultralytics' rule.

    ``labels`` takes the place of the last folder ``images`` of the path. Without such a
    file, the labels are beside the image.
    """
    beside = image.with_suffix(".txt")
    parts = list(beside.parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i].lower() == "images":
            parts[i] = "labels" if parts[i] == "images" else "Labels"
            apart = Path(*parts)
            return apart if os.path.isfile(apart) else beside
    return beside


def is_label_file(file: Path) -> bool:
    """Whether the first line of a file has a class and four or more numbers."""
    try:
        lines = read_text(file).split("\n", 20)
    except InputError:
        return False
    first = next((line.split() for line in lines if line.strip()), [])
    return len(first) >= 5 and all(_number(value) is not None for value in first)


def read(
    images: Sequence[Path],
    names: Sequence[str],
    root: Path,
    keypoints: int = 0,
) -> Reading:
    """Read the label files of images.

    Args:
        images: the image files, which need not exist.
        names: of the classes, by index.
        root: the data set's folder, to which names in messages are relative.
        keypoints: how many numbers of keypoints follow each box.
    """
    content = Content(common(image.parent for image in images), names)
    labels = {image: label_file(image) for image in images}
    present = {image: file for image, file in labels.items() if file.is_file()}
    sizes = dict(
        zip(present, for_all(size_of, list(present), "reading sizes"), strict=True)
    )
    for image in images:
        image_id = content.add_image(image, sizes.get(image))
        if image in present:
            file, size = present[image], sizes[image]
            _add_objects(content, image_id, file, size, len(names), root, keypoints)
    missing = [image for image in images if image not in present]
    if 2 * len(missing) > len(images):
        for image in missing:
            content.problem(NO_LABELS, shown(image, root))
    for file in _without_image(present):
        content.problem(NO_IMAGE, shown(file, root))
    folders = sorted({shown(file.parent, root) for file in present.values()})
    source = f"YOLO, {len(present)} label files in {', '.join(folders[:3]) or root}"
    if len(folders) > 3:
        source += f" and {len(folders) - 3} more folders"
    if missing:
        source += f"; {len(missing)} images have none, and so no objects"
    if keypoints:
        source += "; keypoints are not used"
    return content.reading(source)


def _add_objects(
    content: Content,
    image_id: int,
    file: Path,
    size: tuple[int, int] | None,
    classes: int,
    root: Path,
    keypoints: int,
) -> None:
    """Add the objects of a label file."""
    name = shown(file, root)
    try:
        with unnamed(file):
            text = read_text(file)
    except InputError as error:
        content.problem(BAD_FILE, f"{name}: {error}")
        return
    width, height = size or (1, 1)
    for number, line in enumerate(text.splitlines(), 1):
        values = line.split()
        if not values:
            continue
        where = f"{name} line {number}"
        if keypoints and len(values) == 5 + keypoints:
            values = values[:5]
        numbers = [_number(value) for value in values]
        finite = [number for number in numbers if number is not None]
        if why := _problem(values, finite):
            content.problem(BAD_LINE, f"{where}: {why}")
            continue
        label, *fractions = finite
        if not (label.is_integer() and 0 <= label < classes):
            why = f"class {values[0]} of {classes} classes"
            content.problem(NO_CLASS, f"{where}: {why}")
            continue
        if size is None:  # the image is missing or damaged: the check says so
            continue
        if len(fractions) == 4:
            x, y, w, h = fractions
            corners = [
                *((x - w / 2) * width, (y - h / 2) * height),
                *((x + w / 2) * width, (y + h / 2) * height),
            ]
            content.add_object(image_id, int(label), corners, where)
        else:
            polygon = [
                fraction * (height if i % 2 else width)
                for i, fraction in enumerate(fractions)
            ]
            box = bounds([polygon])
            content.add_object(image_id, int(label), box, where, [polygon])


def _number(value: str) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in value else None


def _problem(values: list[str], finite: list[float]) -> str | None:
    """Why a line cannot be read, in few words; None if it can."""
    if len(finite) < len(values):
        wrong = next(value for value in values if _number(value) is None)
        return f"{wrong[:20]} is no number"
    if len(values) == 6:
        return "6 values: is the last one a confidence? Remove it"
    if len(values) < 5 or len(values) % 2 == 0:
        return f"{len(values)} values"
    fractions = finite[1:]
    if max(fractions) > 1 + TOLERANCE or min(fractions) < -TOLERANCE:
        return "values outside 0 to 1: are they pixels?"
    return None


def _without_image(present: Mapping[Path, Path]) -> list[Path]:
    """The label files beside those that were read for which no image exists."""
    folders: dict[Path, set[Path]] = {}
    for image, file in present.items():
        folders.setdefault(file.parent, set()).add(image.parent)
    alone = []
    for folder, of_images in folders.items():
        names = [name for parent in of_images for name in os.listdir(parent)]
        stems = images_by_stem(names)
        for name in sorted(os.listdir(folder)):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() != ".txt" or stem in stems or name[0] in "._":
                continue
            if stem.lower() not in OTHER_FILES and "readme" not in stem.lower():
                alone.append(folder / name)
    return alone


def shown(path: Path, root: Path) -> str:
    """A path as messages show it: relative to the data set if it is below it."""
    return os.path.relpath(path, root) if path.is_relative_to(root) else str(path)
