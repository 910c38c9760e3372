"""Finds problems in the objects of a COCO file, and yields the rest, cleaned.

mmdet would fail on such objects, train on wrong boxes, or leave them out without a
word.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pycocotools import mask as mask_api

from convnext_dense.errors import printable
from convnext_dense.utils.images import ImageFile
from convnext_dense.utils.masks import finite, read_mask

from .coco_boxes import check_box
from .coco_entries import Id, ListedObject, typed
from .exif import turn_annotation
from .problems import Problems, dropped, error, note, warning

NO_SUCH_IMAGE = error("objects whose image_id is not in the file")
NO_SUCH_CLASS = dropped(
    "objects whose category_id is not in the file",
    "look whether the ids of objects count from 0 and those of classes from 1, or the "
    "other way round: then all objects have a wrong class",
)
NOT_TRAINED = dropped("objects of classes that the training split does not have")
NO_BOX = dropped("objects without a box of four finite numbers")
NO_MASK = dropped(
    "objects without a mask, where other objects have one",
    "--boxes-only trains without masks",
)
BAD_MASK = dropped("masks that are damaged or of another size than their image")
FLAT_MASK = dropped("masks without an area")

SAME_OBJECT_ID = warning("objects whose id another object has", "renumbered")
MASK_BOX = warning("objects without a box", "their boxes are made from their masks")
LARGE_AREA = warning(
    "objects whose area is larger than their image",
    "their areas are computed from their masks or boxes",
)
STRAY_MASK = warning("masks far from their box", "look at them in the page of --html")
IGNORED = warning(
    "objects that the file says to ignore",
    "mmdet trains without them, and its evaluation counts them like others",
)
SAME_OBJECT = note("objects that both entries of a photograph have", "used once")

# In pixels. The IoU of smaller boxes and masks says little: they are a few pixels wide.
SMALL_BOX = 100
STRAY_IOU = 0.3  # of a mask's bounding box and the object's box


class Category(NamedTuple):
    """The class of a category id of the file.

    Attributes:
        name: of the class.
        category: that of the split, with its ``id`` there; None for a class that the
            training split does not have.
    """

    name: str
    category: dict | None


class ClassedObject(NamedTuple):
    """An object of a class of the split.

    Attributes:
        category_id: the id of its category in the split.
    """

    listed: ListedObject
    category_id: int


class UsableImage(NamedTuple):
    """An image of a COCO file that can be read.

    Attributes:
        id: its id in the split.
        file_name: below the folder of images, with '/'.
        annotated: the size on which its objects were annotated: as viewers show the
            image, or as the file stores it.
        file: what was read from its file.
    """

    id: int
    file_name: str
    annotated: tuple[int, int]
    file: ImageFile


def objects_of_images(
    objects: list[ListedObject],
    same_as: Mapping[Id, Id],
    categories: Mapping[Id, Category],
    problems: Problems,
) -> dict[Id, list[ClassedObject]]:
    """The objects of each image, by the image's id in the file.

    Args:
        objects: those of the file.
        same_as: for each id of an image in the file, that of the first entry of the
            same photograph.
        categories: the class of each category id of the file.
        problems: takes objects of images or classes that are not there.
    """
    of_images: dict[Id, list[ClassedObject]] = defaultdict(list)
    again: dict[Id, list[ClassedObject]] = defaultdict(list)  # by second entries
    object_ids = set()
    for listed in objects:
        image_id, category_id = listed.image_id, listed.category_id
        if image_id not in same_as:
            ids = _beside(image_id, same_as)
            problems.add(NO_SUCH_IMAGE, f"{listed.name}: image {ids}")
            continue
        if category_id not in categories:
            ids = _beside(category_id, categories)
            problems.add(NO_SUCH_CLASS, f"{listed.name}: class {ids}")
            continue
        name, category = categories[category_id]
        if category is None:
            problems.add(NOT_TRAINED, f"{listed.name}: {printable(name, 60)}")
            continue
        if listed.id is not None:
            if listed.id in object_ids:
                problems.add(SAME_OBJECT_ID, listed.name)
            object_ids.add(listed.id)
        first = same_as[image_id]
        group = of_images if first == image_id else again
        group[first].append(ClassedObject(listed, category["id"]))
    for first, second_objects in again.items():
        known = set(map(_content, of_images[first]))
        for classed in second_objects:
            if _content(classed) in known:
                problems.add(SAME_OBJECT, classed.listed.name)
            else:
                of_images[first].append(classed)
    return of_images


def _beside(key: Id, present: Mapping[Id, object]) -> str:
    """An id that is not there and, if it is of another type, one that is."""
    example = next(iter(present), None)
    if example is None or type(example) is type(key):
        return typed(key)
    return f"{typed(key)} beside {typed(example)}"


def _content(classed: ClassedObject) -> str:
    """What makes an object another one than the others of its image."""
    listed = classed.listed
    return json.dumps([classed.category_id, listed.bbox, listed.segmentation])


def clean_objects(
    objects: list[ClassedObject],
    image: UsableImage,
    boxes_only: bool,
    problems: Problems,
) -> Iterator[dict]:
    """Yield the annotations of an image that can be trained on.

    They have ``image_id``, ``category_id``, ``bbox``, ``area``, ``iscrowd`` and, if
    there is a mask, ``segmentation``; in pixels of the image as viewers show it. Those
    that the file says to ignore have ``ignore``, which mmdet reads.

    Args:
        boxes_only: leave masks out, unread.
    """
    width, height = image.annotated
    for listed, category_id in objects:
        name = f"{listed.name} in {image.file_name}"
        mask = rle = bounds = None
        if not boxes_only and listed.segmentation is not None:
            masks = read_mask(listed.segmentation, width, height)
            if masks is None:
                problems.add(BAD_MASK, name)
                continue
            mask, rle = masks
            if not mask_api.area(rle):
                problems.add(FLAT_MASK, name)
                continue
            bounds = mask_api.toBbox(rle).tolist()
        bbox = listed.bbox
        if bounds and _is_empty(bbox):
            problems.add(MASK_BOX, name)
            bbox = bounds
        numbers = finite(bbox)
        if numbers is None or len(numbers) != 4:
            problems.add(NO_BOX, f"{name}: bbox {typed(bbox)}")
            continue
        problem, box = check_box(numbers, width, height)
        if problem:
            problems.add(problem, name)
        if box is None:
            continue
        large = bounds and box[2] * box[3] > SMALL_BOX
        if large and mask_api.iou([box], [bounds], [0])[0, 0] < STRAY_IOU:
            problems.add(STRAY_MASK, name)
        area = _listed_area(listed)
        if area > width * height:
            problems.add(LARGE_AREA, name)
        if not 0 < area <= width * height:
            area = float(mask_api.area(rle)) if rle else box[2] * box[3]
        annotation = dict(
            image_id=image.id,
            category_id=category_id,
            bbox=box,
            area=area,
            iscrowd=int(listed.is_crowd),
        )
        if listed.is_ignored:
            problems.add(IGNORED, name)
            annotation["ignore"] = 1
        if mask is not None:
            annotation["segmentation"] = mask
        if image.annotated != image.file.shown:
            orientation = image.file.orientation
            annotation = turn_annotation(annotation, orientation, width, height)
        yield annotation


def _is_empty(bbox: Any) -> bool:
    """Whether a box is missing, or is no box: [], or [x, y, 0, 0]."""
    numbers = finite(bbox) if bbox else None
    return not bbox or (numbers is not None and numbers[2:] == [0, 0])


def _listed_area(listed: ListedObject) -> float:
    """The area that the file says, in pixels; 0 if it says none."""
    area = finite([listed.area])
    return area[0] if area else 0


def has_mask(annotation: dict, image: UsableImage, problems: Problems) -> bool:
    """Whether an annotation has a mask, in a file where other objects have one."""
    if "segmentation" not in annotation:
        problems.add(NO_MASK, f"an object in {image.file_name}")
    return "segmentation" in annotation
