"""Reads labelme's JSON files, one for each image.

Shapes are read as labelme's own converters read them (examples/instance_segmentation/
labelme2coco.py and labelme/utils/shape.py): shapes of one label and one ``group_id``
are one object, circles and rectangles are filled areas, and the label ``__ignore__``
is no class. Where a split has rectangles only, they are boxes without masks.
"""

import base64
import binascii
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from convnext_dense.errors import InputError
from convnext_dense.utils.image_content import check_image, decode
from convnext_dense.utils.images import unnamed
from convnext_dense.utils.json_files import read_json
from convnext_dense.utils.masks import finite, read_mask

from ..problems import error, shown, warning
from ..split_paths import DatasetPaths, SplitPaths
from .content import (
    BAD_FILE,
    BAD_OBJECT,
    NO_IMAGE,
    NOT_ANNOTATED,
    TWO_IMAGES,
    Content,
    Reading,
    bounds,
    size_of,
)
from .tree import (
    AnnotatedFolder,
    Tree,
    annotated_folders,
    by_split,
    common,
    image_of,
    stems_in,
    without_file,
)

NAME = "labelme"
SUFFIX = ".json"
IGNORED = "__ignore__"
NO_AREA = warning("points and lines, which are no objects", "not used")
IGNORED_SHAPES = warning(f"shapes of the label {IGNORED}", "not used")
IMAGE_INSIDE = error(
    "images that are only inside their labelme files, as imageData",
    "write each beside its file, with labelme_export_json or a script",
)
LINES = ("point", "points", "line", "linestrip")
CIRCLE_POINTS = 64  # the polygon's area is 0.2 % below the circle's
LARGEST = 50_000_000  # bytes of a file that is looked at to recognise it


def find(root: Path, tree: Tree) -> DatasetPaths | None:
    """The splits of a folder, or None if it has no labelme files.

    Raises:
        InputError: the split of some folders is not known.
    """
    folders = annotated_folders(tree, SUFFIX, is_labelme)
    splits = by_split(folders, root, "labelme files") if folders else {}
    if "train" not in splits:
        return None
    return {
        split: SplitPaths(
            annotated[0].files[0].parent,
            common(folder.images for folder in annotated),
            partial(read, annotated, root),
        )
        for split, annotated in splits.items()
    }


def is_labelme(file: Path) -> bool:
    """Whether a file is a labelme annotation."""
    try:
        if os.path.getsize(file) > LARGEST:
            return False
        return is_labelme_content(read_json(file))
    except (InputError, OSError):
        return False


def is_labelme_content(content: Any) -> bool:
    """Whether the content of a JSON file is labelme's."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("shapes"), list)
        and ("imagePath" in content or "imageData" in content)
    )


def read(folders: list[AnnotatedFolder], root: Path) -> Reading:
    """Read the files of a split.

    Args:
        root: the data set's folder, to which names in messages are relative.
    """
    content = Content(common(folder.images for folder in folders))
    objects: list[tuple[int, _Object]] = []
    used: set[Path] = set()
    number = 0
    for folder in folders:
        stems = stems_in(folder.images)
        for file in folder.files:
            number += 1
            name = file.relative_to(root).as_posix()
            try:
                with unnamed(file):
                    annotation = read_json(file)
                if not is_labelme_content(annotation):
                    raise InputError("it is not a labelme file")
            except InputError as error:
                content.problem(BAD_FILE, f"{name}: {error}")
                continue
            image = _image(content, file, annotation, folder.images, stems, name)
            if image is None:
                continue
            used.add(image)
            size = _size(annotation)
            image_id = content.add_image(image, size)
            size = size or size_of(image)
            for group in _objects(content, annotation["shapes"], name, size):
                objects.append((image_id, group))
    with_masks = any(group.has_outline for _, group in objects)
    rectangles = 0
    for image_id, group in objects:
        rectangles += with_masks and not group.has_outline
        mask = group.mask() if with_masks else None
        content.add_object(
            image_id, group.label, group.box, group.where, mask, group.crowd
        )
    for image in without_file(folders, used):
        content.problem(NOT_ANNOTATED, image.relative_to(root).as_posix())
    source = f"labelme, {number} JSON files in " + ", ".join(
        str(folder.files[0].parent.relative_to(root)) for folder in folders[:3]
    )
    if rectangles:
        source += f"; {rectangles} rectangles are masks too, beside polygons"
    return content.reading(source)


def _image(
    content: Content,
    file: Path,
    annotation: dict,
    images: Path,
    stems: dict[str, list[str]],
    name: str,
) -> Path | None:
    """The image of a file, or None after a problem was noted."""
    named = annotation.get("imagePath")
    named = named if isinstance(named, str) and "\0" not in named else ""
    image, two = image_of(file, named, images, stems)
    if image or two:
        if two:
            content.problem(TWO_IMAGES, f"{name}: {named}")
        return image
    if annotation.get("imageData"):
        content.problem(IMAGE_INSIDE, name)
    elif not named:
        content.problem(NO_IMAGE, name)
    else:  # the check of images looks further
        return images / named.replace("\\", "/").rsplit("/", 1)[-1]
    return None


def _size(annotation: dict) -> tuple[int, int] | None:
    sides = annotation.get("imageWidth"), annotation.get("imageHeight")
    numbers = finite(list(sides))
    if numbers is None or min(numbers) < 1:
        return None
    return int(numbers[0]), int(numbers[1])


class _Object:
    """The shapes of one object.

    Attributes:
        where: its first shape, for messages.
        has_outline: whether a shape says more than a rectangle.
        crowd: neither background nor trained on.
        box: left, top, right, bottom, in pixels.
    """

    def __init__(self, label: str, where: str, size: tuple[int, int] | None) -> None:
        self.label, self.where = label, where
        self.has_outline = self.crowd = False
        self.box: tuple[float, ...] = (math.inf, math.inf, -math.inf, -math.inf)
        self._size = size
        self._polygons: list[list[float]] = []
        self._bitmaps: list[dict] = []

    def add(self, box: tuple[float, ...], polygon: list[float] | dict) -> None:
        """Add a polygon, or the run lengths of a bitmap."""
        low = map(min, self.box[:2], box[:2])
        high = map(max, self.box[2:], box[2:])
        self.box = (*low, *high)
        if isinstance(polygon, dict):
            self._bitmaps.append(polygon)
        else:
            self._polygons.append(polygon)

    def mask(self) -> list | dict:
        """Polygons, or compressed run lengths where a shape is a bitmap."""
        if not self._bitmaps or self._size is None:
            return self._polygons
        masks = list(self._bitmaps)
        if self._polygons and (read := read_mask(self._polygons, *self._size)):
            masks.append(read[1])
        merged = mask_api.merge(masks)
        return dict(size=merged["size"], counts=merged["counts"].decode())


def _objects(
    content: Content, shapes: list, file: str, size: tuple[int, int] | None
) -> list[_Object]:
    """The objects of a file; what is none is noted as a problem."""
    groups: dict[tuple, _Object] = {}
    for number, shape in enumerate(shapes, 1):
        shape = shape if isinstance(shape, dict) else {}
        label = shape.get("label")
        where = f"{file} shape {number} ({shown(label)})"
        label = str(label).strip() if isinstance(label, str | int | float) else ""
        form = shape.get("shape_type") or "polygon"  # old versions write none
        if label == IGNORED:
            content.problem(IGNORED_SHAPES, where)
            continue
        if form in LINES:
            content.problem(NO_AREA, where)
            continue
        try:
            if not label:
                raise InputError("no label")
            box, outline = _read_shape(form, shape, size)
        except InputError as error:
            content.problem(BAD_OBJECT, f"{where}: {error}")
            continue
        group_id = shape.get("group_id")
        single = group_id is None or isinstance(group_id, list | dict)
        key = (label, number) if single else (label, "group", group_id)
        group = groups.setdefault(key, _Object(label, where, size))
        group.add(box, outline)
        group.has_outline |= form != "rectangle"
        group.crowd |= shape.get("difficult") is True  # X-AnyLabeling's
    return list(groups.values())


def _read_shape(
    form: Any, shape: dict, size: tuple[int, int] | None
) -> tuple[tuple[float, ...], list[float] | dict]:
    """The box of a shape, and its polygon or run lengths.

    Raises:
        InputError: it cannot be read.
    """
    points = shape.get("points")
    pairs = [finite(point) for point in points] if isinstance(points, list) else []
    flat = [side for pair in pairs if pair and len(pair) == 2 for side in pair]
    if len(flat) != 2 * len(pairs) or not pairs:
        raise InputError("its points are not pairs of numbers")
    match form, len(pairs):
        case "mask", _:
            return _read_bitmap(shape, flat, size)
        case "circle", 2:
            x, y, edge_x, edge_y = flat
            radius = math.hypot(edge_x - x, edge_y - y)
            angles = np.arange(CIRCLE_POINTS) * (2 * math.pi / CIRCLE_POINTS)
            circle = np.stack([np.cos(angles), np.sin(angles)], 1) * radius + (x, y)
            box = (x - radius, y - radius, x + radius, y + radius)
            return box, circle.round(3).ravel().tolist()
        case "rectangle", 2:
            left, top, right, bottom = bounds([flat])
            corners = [left, top, right, top, right, bottom, left, bottom]
            return (left, top, right, bottom), corners
        case "rectangle", 4:
            return bounds([flat]), flat
        case "polygon" | "rotation" | "oriented_rectangle" | "quadrilateral", n:
            if n >= 3:
                return bounds([flat]), flat
        case (("circle" | "rectangle"), _):
            pass
        case _:
            raise InputError(f"shape_type {shown(form)} is not known")
    raise InputError(f"a {form} of {len(pairs)} points")


def _read_bitmap(
    shape: dict, corners: list[float], size: tuple[int, int] | None
) -> tuple[tuple[float, ...], dict]:
    """The box and the run lengths of a ``mask``: a PNG of the pixels in a rectangle.

    Raises:
        InputError: the PNG cannot be read, or lies outside the image.
    """
    if size is None:
        raise InputError("the size of the image is not known")
    width, height = size
    left, top = (int(min(corners[i::2])) for i in (0, 1))
    bitmap = _decode(shape.get("mask"))
    rows, columns = bitmap.shape
    if left < 0 or top < 0 or left + columns > width or top + rows > height:
        raise InputError("its mask reaches outside the image")
    if not bitmap.any():
        raise InputError("its mask is empty")
    whole = np.zeros((height, width), np.uint8, order="F")
    whole[top : top + rows, left : left + columns] = bitmap
    encoded = mask_api.encode(whole)
    x, y, w, h = mask_api.toBbox(encoded).tolist()
    return (x, y, x + w, y + h), encoded


def _decode(text: Any) -> np.ndarray:
    """A PNG in base64 as (H, W) bool.

    Raises:
        InputError: it is none.
    """
    try:
        png = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InputError("its mask is not base64") from error
    check_image(png)
    image = decode(png, 0)  # cv2.IMREAD_GRAYSCALE
    if image is None:
        raise InputError("its mask is not a PNG")
    return image > 0
