"""Finds problems in a COCO file and its images, and returns the rest, cleaned.

``coco_entries`` reads the file, and ``coco_objects`` checks its objects.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from convnext_dense.errors import InputError, printable
from convnext_dense.utils.images import SMALLEST, read_images

from .coco import CocoSplit
from .coco_boxes import check_corners
from .coco_entries import CocoEntries, Id, ListedCategory, ListedImage, read_entries
from .coco_objects import (
    Category,
    UsableImage,
    clean_objects,
    has_mask,
    objects_of_images,
)
from .image_names import ImageNames
from .problems import (
    NOT_WHOLE,
    TINY,
    UNREADABLE,
    Problems,
    error,
    note,
    warning,
)
from .splits import totals

# The largest public data sets have 13 000. A head for more takes gigabytes.
MOST_CLASSES = 20_000
# Other libraries hold ids as floats, or as integers of 64 bits.
LARGEST_ID = 2**53
LONGEST_SHOWN = 100  # characters of a name beside another in a message

SAME_CLASS_ID = error(
    "classes of different names under one id",
    "give each class its own id, and its objects that id",
    fix="",
)
SAME_ID = error("images of different files under one id")
SAME_FILE = error("different names of images that lead to one file")
MISSING = error(
    "images that are not in the folder",
    "name their folder as --train-images or --val-images",
)
OTHER_SIZE = error("images of another size than the file says")
AS_STORED = error(
    "images annotated as stored, which their EXIF orientation turns",
    fix="turns the annotations",
)
NOTHING = error(
    "splits without objects to train on (crowd regions and ignored objects do not "
    "count)",
    "annotate some",
    fix="",
)

NOT_LISTED = warning("images in the folder that the file does not list", "not used")
UNUSED = warning("classes without objects", "the model cannot learn them")
ALIKE = warning(
    "classes whose names differ only in capitals",
    "each is a class of its own: if they mean one, give them one name",
)

OTHER_NAME = note(
    "images with another name in the file than in the folder",
    "for each, exactly one file fits",
)
LISTED_TWICE = note(
    "images listed twice", "they have the objects of both; equal ones count once"
)
SAME_CLASS = note("classes listed more than once", "each name is one class")


def examine(
    content: Mapping,
    folder: Path,
    name: str,
    trained: list[dict] | None = None,
    boxes_only: bool = False,
    allow_dropped: bool = False,
    elsewhere: Collection[str | None] | None = (),
) -> CocoSplit:
    """Check the annotations and read every image file.

    Args:
        content: the COCO file, with lists of images, annotations and categories.
        folder: the folder of the images.
        name: 'train' or 'val'.
        trained: the training split's categories, whose ids and order the split
            takes; None if this is the training split.
        boxes_only: leave masks out, unread.
        allow_dropped: whether objects may be left out of images that stay.
        elsewhere: the names of images in the folder that another split has; None if
            the splits need not have all images of the folder.

    Raises:
        InputError: there is no such folder, or too many classes.
    """
    if not folder.is_dir():
        raise InputError(
            f"the {name} images: there is no folder {folder}; name it as "
            f"--{name}-images"
        )
    problems = Problems(allow_dropped)
    entries = read_entries(content, problems)
    categories, classes = _categories(entries.categories, trained, problems)
    if len(categories) > MOST_CLASSES:
        raise InputError(
            f"the {name} annotations have {len(categories)} classes; at most "
            f"{MOST_CLASSES} can be trained on: leave the others out"
        )
    located = _located_images(entries, folder, elsewhere, problems)
    images = _usable_images(located, folder, name, problems)
    objects = objects_of_images(entries.objects, located.same_as, classes, problems)
    boxes = (
        (o.listed.name, o.listed.bbox, o.listed.segmentation, image.annotated)
        for key, image in images.items()
        for o in objects.get(key, ())
    )
    check_corners(boxes, problems)
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
    split = CocoSplit(
        name=name,
        folder=folder,
        categories=categories,
        images=[_entry(image) for image in images.values()],
        annotations=annotations,
        has_masks=has_masks,
        digests=[image.file.digest for image in images.values()],
        problems=problems,
    )
    used = totals(split.objects, len(split.classes))
    for class_name, number in zip(split.classes, used, strict=True):
        if not number:
            problems.add(UNUSED, class_name)
    if not used.any():
        problems.fixable = False
        problems.add(NOTHING, name)
    return split


def _entry(image: UsableImage) -> dict:
    """An image as a COCO file lists it, with the size that viewers show."""
    width, height = image.file.shown
    return dict(id=image.id, file_name=image.file_name, width=width, height=height)


def _categories(
    listed: list[ListedCategory], trained: list[dict] | None, problems: Problems
) -> tuple[list[dict], dict[Id, Category]]:
    """The categories of the split, and for each id of the file its category.

    Categories of one name are one class.
    """
    by_name: dict[str, dict] = {}
    by_id: dict[Id, Category] = {}
    for entry in listed:
        other = by_id.get(entry.id)
        if other and other.name != entry.name:
            names = f"{entry.id}: {printable(other.name, 60)}, {entry.name}"
            problems.add(SAME_CLASS_ID, names)
            continue
        if entry.name in by_name:
            problems.add(SAME_CLASS, f"{entry.name} (id {entry.id})")
        category = by_name.setdefault(entry.name, dict(id=entry.id, name=entry.name))
        by_id[entry.id] = Category(entry.name, category)
    folded = {c["name"].casefold(): c["name"] for c in trained or ()}
    for class_name in by_name:
        other_name = folded.setdefault(class_name.casefold(), class_name)
        if other_name != class_name and not _has_name(trained, class_name):
            problems.add(ALIKE, f"{other_name} and {class_name}")
    ids = _whole_ids(category["id"] for category in by_name.values())
    for category, number in zip(by_name.values(), ids, strict=True):
        category["id"] = number
    if trained is None:
        return sorted(by_name.values(), key=lambda c: c["id"]), by_id
    known = {category["name"]: category for category in trained}
    return trained, {
        key: Category(category.name, known.get(category.name))
        for key, category in by_id.items()
    }


def _has_name(categories: list[dict] | None, name: str) -> bool:
    """Whether a category has a name."""
    return any(category["name"] == name for category in categories or ())


def _whole_ids(ids: Iterable[Id]) -> list[int]:
    """The ids if all are whole numbers, which COCO's results need, and not too large
    for other libraries; else 1, 2, ..."""
    listed = list(ids)
    numbers = [key for key in listed if isinstance(key, int) and abs(key) < LARGEST_ID]
    return numbers if len(numbers) == len(listed) else [*range(1, len(listed) + 1)]


class _LocatedImages(NamedTuple):
    """The images of a file that are in the folder.

    Attributes:
        files: for the id of each, its file below the folder.
        sizes: for the id of each, its size in the COCO file, if it is said.
        same_as: for each id, that of the first entry of the same photograph; also for
            images that cannot be used.
    """

    files: dict[Id, str]
    sizes: dict[Id, tuple[int, int] | None]
    same_as: dict[Id, Id]


def _located_images(
    entries: CocoEntries,
    folder: Path,
    elsewhere: Collection[str | None] | None,
    problems: Problems,
) -> _LocatedImages:
    """Find the file of each image of a COCO file."""
    names = ImageNames(folder)
    files: dict[Id, str] = {}
    sizes: dict[Id, tuple[int, int] | None] = {}
    same_as = {key: key for key in entries.unusable_images}
    first: dict[str, ListedImage] = {}  # of each file
    doubtful: set[Id] = set()  # nobody knows of which image their objects are
    for entry in entries.images:
        same_as.setdefault(entry.id, entry.id)
        file, is_exact, why = names.find(entry.file_name)
        if file is None:
            text = printable(entry.file_name, LONGEST_SHOWN)
            problems.add(MISSING, f"{text} ({why})" if why else text)
            continue
        if not is_exact:
            text = printable(entry.file_name, LONGEST_SHOWN)
            problems.add(OTHER_NAME, f"{text} -> {file}")
        other = first.setdefault(file, entry)
        if other is not entry:
            if other.file_name != entry.file_name:
                both = f"{printable(other.file_name, 80)}, {entry.file_name} -> {file}"
                problems.add(SAME_FILE, both)
                doubtful |= {other.id, entry.id}
            elif other.size and entry.size and other.size != entry.size:
                sizes_text = f"{_size(other.size)}, {_size(entry.size)}"
                problems.add(OTHER_SIZE, f"{file}: {sizes_text}")
                doubtful |= {other.id, entry.id}
            elif entry.id in files and files[entry.id] != file:
                problems.add(SAME_ID, f"{entry.id}: {entry.file_name}")
                doubtful.add(entry.id)
            else:
                problems.add(LISTED_TWICE, entry.file_name)
                same_as[entry.id] = other.id
        elif entry.id in files:
            problems.add(SAME_ID, f"{entry.id}: {entry.file_name}")
            doubtful.add(entry.id)
        else:
            files[entry.id], sizes[entry.id] = file, entry.size
    for key in doubtful:
        files.pop(key, None)
    for file in names.files:
        if elsewhere is not None and file not in first and file not in elsewhere:
            problems.add(NOT_LISTED, file)
    return _LocatedImages(files, sizes, same_as)


def _usable_images(
    located: _LocatedImages, folder: Path, name: str, problems: Problems
) -> dict[Id, UsableImage]:
    """The images that can be read and have the size that the file says, by id."""
    paths = {key: folder / file for key, file in located.files.items()}
    contents = read_images(paths.values(), f"reading {name} images")
    annotated: dict[Id, tuple[int, int]] = {}
    for key, path in paths.items():
        file_name, file, size = located.files[key], contents[path], located.sizes[key]
        if file.error:
            problems.add(UNREADABLE, f"{file_name}: {file.error}")
            continue
        if size and size not in (file.shown, file.stored):
            sizes = f"{_size(size)}, is {_size(file.shown)}"
            problems.add(OTHER_SIZE, f"{file_name}: {sizes}")
            continue
        annotated[key] = file.shown
        if size and size != file.shown:
            problems.add(AS_STORED, file_name)
            annotated[key] = file.stored
        if file.note:
            problems.add(NOT_WHOLE, f"{file_name}: {file.note}")
        if min(file.shown) < SMALLEST:
            problems.add(TINY, f"{file_name}: {_size(file.shown)}")
    return {
        key: UsableImage(number, located.files[key], size, contents[paths[key]])
        for number, (key, size) in zip(
            _whole_ids(annotated), annotated.items(), strict=True
        )
    }


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
