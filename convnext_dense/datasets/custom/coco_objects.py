"""Finds problems in the objects of a COCO file, and yields the rest, cleaned.

mmdet would fail on such objects, train on wrong boxes, or leave them out without a
word.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeGuard

from pycocotools import mask as mask_api

from convnext_dense.utils.images import ImageFile
from convnext_dense.utils.masks import finite, read_mask

from .exif import turn_annotation
from .problems import LEFT_OUT, Problems, ProblemType, error, shown, warning

NO_SUCH_IMAGE = error("objects whose image_id is not in the file")
NO_SUCH_CLASS = error("objects whose category_id is not in the file")
NOT_TRAINED = error("objects of classes that the training split does not have")
NO_BOX = error("objects without a box of four finite numbers")
NEGATIVE = error(
    "boxes of negative width or height",
    f"write bbox as x, y, width, height, not as two corners; {LEFT_OUT}",
)
OUTSIDE = error(
    "boxes outside their image",
    f"write bbox in pixels of the image that image_id names; {LEFT_OUT}",
)
NO_MASK = error(
    "objects without a mask, where other objects have one",
    f"--boxes-only trains without masks; {LEFT_OUT}",
)
BAD_MASK = error("masks that are damaged or of another size than their image")

SAME_OBJECT_ID = warning("objects whose id another object has", "renumbered")
MASK_BOX = warning("objects without a box", "their boxes are made from their masks")
EMPTY = warning(
    "boxes below one pixel",
    "left out; write bbox in pixels, not as fractions from 0 to 1",
)
CLIPPED = warning("boxes that reach over the image's edge", "clipped")
LARGE_AREA = warning(
    "objects whose area is larger than their image",
    "their areas are computed from their masks or boxes",
)
FLAT_MASK = warning("masks without an area", "these objects are left out")
STRAY_MASK = warning("masks far from their box", "look at them in the page of --html")

# In pixels. The IoU of smaller boxes and masks says little: they are a few pixels wide.
SMALL_BOX = 100
STRAY_IOU = 0.3  # of a mask's bounding box and the object's box
EDGE_TOLERANCE = 1  # pixels by which tools round boxes over the edge; no warning


class ListedObject(NamedTuple):
    """An object as the COCO file lists it.

    Attributes:
        name: what messages call it, such as 'object 12'.
        entry: its annotation in the file.
        category_id: the id of its category in the split.
    """

    name: str
    entry: Mapping
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


def is_id(value: object) -> TypeGuard[int | str]:
    """Whether a value can be the id of an image, a category or an object."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def list_objects(
    content: Mapping, categories: Mapping[int | str, dict | None], problems: Problems
) -> dict[int | str, list[ListedObject]]:
    """The objects of each image, by the image's id in the file.

    Args:
        content: the COCO file.
        categories: the split's category for each id in the file; None for a class
            that the training split does not have.
    """
    # Also of images that cannot be used: that is a problem of the image.
    entries = [entry for entry in content["images"] if isinstance(entry, dict)]
    image_ids = {entry.get("id") for entry in entries if is_id(entry.get("id"))}
    objects: dict[int | str, list[ListedObject]] = defaultdict(list)
    object_ids = set()
    for number, entry in enumerate(content["annotations"]):
        entry = entry if isinstance(entry, dict) else {}
        name = f"object {shown(entry.get('id', f'number {number}'))}"
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        if not is_id(image_id) or image_id not in image_ids:
            problems.add(NO_SUCH_IMAGE, f"{name}: image {shown(image_id)}")
            continue
        if not is_id(category_id) or category_id not in categories:
            problems.add(NO_SUCH_CLASS, f"{name}: class {shown(category_id)}")
            continue
        category = categories[category_id]
        if category is None:
            problems.add(NOT_TRAINED, f"{name}: class {category_id}")
            continue
        if is_id(entry.get("id")):
            if entry["id"] in object_ids:
                problems.add(SAME_OBJECT_ID, name)
            object_ids.add(entry["id"])
        objects[image_id].append(ListedObject(name, entry, category["id"]))
    return objects


def clean_objects(
    objects: list[ListedObject],
    image: UsableImage,
    boxes_only: bool,
    problems: Problems,
) -> Iterator[dict]:
    """Yield the annotations of an image that can be trained on.

    They have ``image_id``, ``category_id``, ``bbox``, ``area``, ``iscrowd`` and, if
    there is a mask, ``segmentation``; in pixels of the image as viewers show it.

    Args:
        boxes_only: leave masks out, unread.
    """
    width, height = image.annotated
    for listed_name, entry, category_id in objects:
        name = f"{listed_name} in {image.file_name}"
        mask = rle = bounds = None
        if not boxes_only and entry.get("segmentation"):
            masks = read_mask(entry["segmentation"], width, height)
            if masks is None:
                problems.add(BAD_MASK, name)
                continue
            mask, rle = masks
            if not mask_api.area(rle):
                problems.add(FLAT_MASK, name)
                continue
            bounds = mask_api.toBbox(rle).tolist()
        listed_box = entry.get("bbox")
        if not listed_box and bounds:
            problems.add(MASK_BOX, name)
            listed_box = bounds
        numbers = finite(listed_box)
        if numbers is None or len(numbers) != 4:
            problems.add(NO_BOX, name)
            continue
        problem, box = _check_box(numbers, width, height)
        if problem:
            problems.add(problem, name)
        if box is None:
            continue
        large = bounds and box[2] * box[3] > SMALL_BOX
        if large and mask_api.iou([box], [bounds], [0])[0, 0] < STRAY_IOU:
            problems.add(STRAY_MASK, name)
        area = _listed_area(entry)
        if area > width * height:
            problems.add(LARGE_AREA, name)
        if not 0 < area <= width * height:
            area = float(mask_api.area(rle)) if rle else box[2] * box[3]
        annotation = dict(
            image_id=image.id,
            category_id=category_id,
            bbox=box,
            area=area,
            iscrowd=int(_is_crowd(entry)),
        )
        if mask is not None:
            annotation["segmentation"] = mask
        if image.annotated != image.file.shown:
            orientation = image.file.orientation
            annotation = turn_annotation(annotation, orientation, width, height)
        yield annotation


def _check_box(
    box: list[float], width: int, height: int
) -> tuple[ProblemType | None, list[float] | None]:
    """The problem of a box, if any, and the box clipped to its image.

    The box is None if the object must be left out.
    """
    x, y, w, h = box
    if w < 0 or h < 0:
        return NEGATIVE, None
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + w, float(width)), min(y + h, float(height))
    if right <= left or bottom <= top:
        return (OUTSIDE if w and h else EMPTY), None
    if right - left < 1 or bottom - top < 1:
        return EMPTY, None
    over = max(left - x, top - y, x + w - right, y + h - bottom)
    clipped = [left, top, right - left, bottom - top]
    return (CLIPPED if over > EDGE_TOLERANCE else None), clipped


def _listed_area(entry: Mapping) -> float:
    """The area that the file says, in pixels; 0 if it says none."""
    area = finite([entry.get("area")])
    return area[0] if area else 0


def _is_crowd(entry: Mapping) -> bool:
    """Whether an object is a region of many; some tools write '0' for no."""
    crowd = entry.get("iscrowd")
    return bool(crowd) and crowd != "0"


def has_mask(annotation: dict, image: UsableImage, problems: Problems) -> bool:
    """Whether an annotation has a mask, in a file where other objects have one."""
    if "segmentation" not in annotation:
        problems.add(NO_MASK, f"an object in {image.file_name}")
    return "segmentation" in annotation
