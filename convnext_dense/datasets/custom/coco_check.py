"""Finds problems in a COCO file and its images, and returns the rest, cleaned.

``coco_objects`` does so for the objects.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from convnext_dense.errors import InputError, printable
from convnext_dense.utils.images import SMALLEST, list_images, read_images
from convnext_dense.utils.text import LONGEST_NAME

from .coco import CocoSplit
from .coco_objects import UsableImage, clean_objects, has_mask, is_id, list_objects
from .problems import (
    NOT_WHOLE,
    TINY,
    UNREADABLE,
    Problems,
    class_name_problem,
    error,
    shown,
    warning,
)

# The largest public data sets have 13 000. A head for more takes gigabytes.
MOST_CLASSES = 20_000
# Other libraries hold ids as floats, or as integers of 64 bits.
LARGEST_ID = 2**53

NAMELESS = error("entries without an id or a name")
SAME_CLASS = error(
    "classes of the same name or id",
    "--fix keeps the first, with the objects of the others",
)
BAD_NAME = error(
    f"class names with control characters or more than {LONGEST_NAME} characters",
    "--fix shortens them and writes control characters out",
)
SAME_ID = error("images of different files under one id")
MISSING = error(
    "images that are not in the folder",
    "name their folder as --train-images or --val-images; --fix leaves them out",
)
OTHER_SIZE = error("images of another size than the file says")
AS_STORED = error(
    "images annotated as stored, which their EXIF orientation turns",
    "--fix turns the annotations",
)
NOTHING = error("splits without a single object", "annotate some")

LISTED_TWICE = warning(
    "images listed twice",
    "the second entry is left out, with the objects under its own id",
)
NOT_LISTED = warning("images in the folder that the file does not list", "not used")
UNUSED = warning("classes without objects", "the model cannot learn them")


def examine(
    content: Mapping,
    folder: Path,
    name: str,
    trained: list[dict] | None = None,
    boxes_only: bool = False,
) -> CocoSplit:
    """Check the annotations and read every image file.

    Args:
        content: the COCO file, with lists of images, annotations and categories.
        folder: the folder of the images.
        name: 'train' or 'val'.
        trained: the training split's categories, whose ids and order the split
            takes; None if this is the training split.
        boxes_only: leave masks out, unread.

    Raises:
        InputError: there is no such folder, or too many classes.
    """
    if not folder.is_dir():
        raise InputError(
            f"the {name} images: there is no folder {folder}; name it as "
            f"--{name}-images"
        )
    if len(content["categories"]) > MOST_CLASSES:
        raise InputError(
            f"the {name} annotations have {len(content['categories'])} categories; at "
            f"most {MOST_CLASSES} can be trained on: leave the others out"
        )
    problems = Problems()
    category_of, categories = _categories(content["categories"], trained, problems)
    images = _images(content["images"], folder, name, problems)
    objects = list_objects(content, category_of, problems)
    annotations = [
        list(clean_objects(objects.get(key, []), image, boxes_only, problems))
        for key, image in images.items()
    ]
    has_masks = any("segmentation" in a for of_image in annotations for a in of_image)
    if has_masks:
        annotations = [
            [a for a in of_image if has_mask(a, image, problems)]
            for of_image, image in zip(annotations, images.values(), strict=True)
        ]
    used = Counter(a["category_id"] for of_image in annotations for a in of_image)
    for category in categories:
        if not used[category["id"]]:
            problems.add(UNUSED, category["name"])
    if not used:
        problems.add(NOTHING, name)
    return CocoSplit(
        name=name,
        folder=folder,
        categories=categories,
        images=[_entry(image) for image in images.values()],
        annotations=annotations,
        has_masks=has_masks,
        digests=[image.file.digest for image in images.values()],
        problems=problems,
    )


def _entry(image: UsableImage) -> dict:
    """An image as a COCO file lists it, with the size that viewers show."""
    width, height = image.file.shown
    return dict(id=image.id, file_name=image.file_name, width=width, height=height)


def _categories(
    listed: list, trained: list[dict] | None, problems: Problems
) -> tuple[dict[int | str, dict | None], list[dict]]:
    """Read the categories of a file.

    Returns:
        the category of the split for each id of the file, None for a class that the
        training split does not have; and the categories of the split.
    """
    category_of: dict[int | str, dict | None] = {}
    by_name: dict[str, dict] = {}
    for entry in listed:
        name = _class_name(entry, problems) if isinstance(entry, dict) else ""
        if not name or not is_id(entry.get("id")):
            problems.add(NAMELESS, f"category {shown(entry)}")
        elif name in by_name or entry["id"] in category_of:
            problems.add(SAME_CLASS, f"{entry['id']}: {name}")
            category_of.setdefault(entry["id"], by_name.get(name))
        else:
            by_name[name] = category_of[entry["id"]] = dict(id=entry["id"], name=name)
    ids = _whole_ids(category["id"] for category in by_name.values())
    for category, number in zip(by_name.values(), ids, strict=True):
        category["id"] = number
    if trained is None:
        return category_of, sorted(by_name.values(), key=lambda c: c["id"])
    known = {category["name"]: category for category in trained}
    trained_of = {
        key: known.get(category["name"]) if category else None
        for key, category in category_of.items()
    }
    return trained_of, trained


def _class_name(entry: Mapping, problems: Problems) -> str:
    """The name of a category, which may be a number in the file; empty without one."""
    name = entry.get("name")
    if not isinstance(name, str | int | float) or isinstance(name, bool):
        return ""
    name = str(name or "").strip()
    if why := class_name_problem(name):
        problems.add(BAD_NAME, f"{printable(name, 40)}: {why}")
        return printable(printable(name), LONGEST_NAME - len("..."))
    return name


def _whole_ids(ids: Iterable[int | str]) -> list[int]:
    """The ids if all are whole numbers, which COCO's results need, and not too large
    for other libraries; else 1, 2, ..."""
    listed = list(ids)
    numbers = [key for key in listed if isinstance(key, int) and abs(key) < LARGEST_ID]
    return numbers if len(numbers) == len(listed) else [*range(1, len(listed) + 1)]


def _images(
    listed: list, folder: Path, name: str, problems: Problems
) -> dict[int | str, UsableImage]:
    """The images that can be used, by their ids in the file."""
    entries, paths = _listed_images(listed, folder, problems)
    files = read_images(paths.values(), f"reading {name} images")
    usable: dict[int | str, tuple[str, tuple[int, int], Path]] = {}
    for key, entry in entries.items():
        file, path = files[paths[key]], paths[key]
        file_name = path.relative_to(folder).as_posix()
        size = (entry.get("width"), entry.get("height"))
        if file.error:
            problems.add(UNREADABLE, f"{file_name}: {file.error}")
            continue
        if all(size) and size not in (file.shown, file.stored):
            sizes = f"{_size(size)}, is {_size(file.shown)}"
            problems.add(OTHER_SIZE, f"{file_name}: {sizes}")
            continue
        annotated = file.shown
        if all(size) and size != file.shown:
            problems.add(AS_STORED, file_name)
            annotated = file.stored
        if file.note:
            problems.add(NOT_WHOLE, f"{file_name}: {file.note}")
        if min(file.shown) < SMALLEST:
            problems.add(TINY, f"{file_name}: {_size(file.shown)}")
        usable[key] = (file_name, annotated, path)
    return {
        key: UsableImage(number, file_name, annotated, files[path])
        for number, (key, (file_name, annotated, path)) in zip(
            _whole_ids(usable), usable.items(), strict=True
        )
    }


def _listed_images(
    listed: list, folder: Path, problems: Problems
) -> tuple[dict[int | str, dict], dict[int | str, Path]]:
    """The entries of a file that name an image in the folder, and its path, by id."""
    entries: dict[int | str, dict] = {}
    paths: dict[int | str, Path] = {}
    listed_paths, doubtful = set(), set()
    for entry in listed:
        file = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not file or not is_id(entry.get("id")):
            problems.add(NAMELESS, f"image {shown(entry)}")
            continue
        key, path = entry["id"], _locate(folder, file)
        if path is None:
            problems.add(MISSING, file)
            continue
        if path in listed_paths:
            problems.add(LISTED_TWICE, file)
            continue
        listed_paths.add(path)
        if key in entries:
            problems.add(SAME_ID, f"{key}: {file}")
            doubtful.add(key)
        else:
            entries[key], paths[key] = entry, path
    for key in doubtful:  # nobody knows of which image the objects are
        del entries[key], paths[key]
    for file in list_images(folder):
        if folder / file not in listed_paths:
            problems.add(NOT_LISTED, file)
    return entries, paths


def _size(size: tuple) -> str:
    return f"{shown(size[0])} x {shown(size[1])}"


def _locate(folder: Path, file: str) -> Path | None:
    """The path of an image in the folder, also without the folders before its name.

    Labelling tools write folders of their own machine before the name.
    """
    file = file.replace("\\", "/")
    for name in (file, Path(file).name):
        path = Path(os.path.normpath(folder / name))
        if os.path.isfile(path) and folder in path.parents:
            return path
    return None
