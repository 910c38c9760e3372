"""Reads the entries of a COCO file: images, categories and objects, each with types.

Annotation tools, spreadsheets and pandas write ids, sizes and flags as text, floats or
booleans, and rename keys. This is the only place that reads such values: what follows
has numbers, and text only where the file has ids that are no numbers.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from convnext_dense.errors import InputError, printable
from convnext_dense.utils.json_files import parse_json
from convnext_dense.utils.text import LONGEST_NAME, few

from .problems import (
    Problems,
    ProblemType,
    class_name_problem,
    dropped,
    error,
    note,
    shown,
)

NO_KEY = error("images and classes without a key that they need")
NO_OBJECT_KEY = dropped("objects without a key that they need")
NO_SIZE = error("images whose width or height is not a number of pixels")
NO_FLAG = dropped("objects whose iscrowd or ignore is neither 0 nor 1")
BAD_NAME = error(
    f"class names with control characters or more than {LONGEST_NAME} characters",
    fix="shortens them, and escapes control characters",
)
OTHER_TYPES = note(
    "numbers that the file has as text, floats or booleans",
    "read as the numbers that they are",
)
POINTS = note("masks that are lists of points", "read as polygons")

# Keys under which tools write the name of an image. LVIS has coco_url alone.
NAME_KEYS = ("file_name", "coco_url", "filename", "path", "url", "flickr_url")
_WHOLE = re.compile(r"[+-]?\d{1,100}(\.0*)?", re.ASCII)
_FLAGS = {"true": 1, "false": 0}
_SIDES = ("width", "height")
_KEYS_NAMED = 8  # of an entry without a key that it needs

Id = int | str


class ListedImage(NamedTuple):
    """An image as the file lists it.

    Attributes:
        file_name: what the file says: a name, a path or an address.
        size: width and height in pixels; None where the file does not say both.
    """

    id: Id
    file_name: str
    size: tuple[int, int] | None


class ListedCategory(NamedTuple):
    """A category as the file lists it."""

    id: Id
    name: str


class ListedObject(NamedTuple):
    """An object as the file lists it.

    Attributes:
        name: what messages call it, such as 'object 12'.
        id: None if it has none.
        bbox: whatever the file has; ``coco_objects`` reads it.
        segmentation: polygons or run lengths, whatever the file has; None if the object
            has no mask.
        area: whatever the file has.
        is_crowd: whether it is a region of many.
        is_ignored: whether the file says ``ignore``.
    """

    name: str
    id: Id | None
    image_id: Id
    category_id: Id
    bbox: Any
    segmentation: Any
    area: Any
    is_crowd: bool
    is_ignored: bool


class CocoEntries(NamedTuple):
    """The entries of a COCO file that have all that they need.

    Attributes:
        unusable_images: the ids of images without a name or with a wrong size.
    """

    images: list[ListedImage]
    unusable_images: list[Id]
    categories: list[ListedCategory]
    objects: list[ListedObject]


def read_entries(content: Mapping, problems: Problems) -> CocoEntries:
    """Read the entries of a COCO file.

    Args:
        content: the file, with lists of images, categories and annotations.
        problems: takes what is missing or of a wrong type.
    """
    reader = _Reader(problems)
    entries = CocoEntries(
        *reader.images(content["images"]),
        reader.categories(content["categories"]),
        reader.objects(content["annotations"]),
    )
    reader.note_types()
    return entries


def image_name(entry: Mapping) -> str | None:
    """The file name of an image's entry; None if it has none.

    >>> image_name({"id": 1, "path": "a.jpg"})
    'a.jpg'
    """
    names = (entry.get(key) for key in NAME_KEYS)
    return next((n for n in names if isinstance(n, str) and n.strip()), None)


def typed(value: object) -> str:
    """A value for messages that shows text as text.

    >>> typed("1"), typed(1), typed(None)
    ('"1" (text)', '1', 'null')
    """
    if isinstance(value, str):
        return f'"{printable(value, LONGEST_NAME)}" (text)'
    return "null" if value is None else shown(value)


def whole_number(value: object) -> int | None:
    """The whole number that a value of a file means; None if it means none.

    >>> [whole_number(value) for value in (3, 3.0, "3", " 3.0 ", True)]
    [3, 3, 3, 3, 1]
    >>> [whole_number(value) for value in (3.5, "three", "", None, float("nan"))]
    [None, None, None, None, None]
    """
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return None


class _Reader:
    """Reads values, and counts those that are numbers of another type."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._other_types: Counter[tuple[str, str]] = Counter()  # list, key

    def note_types(self) -> None:
        """Note the keys whose numbers have another type."""
        for (of, key), count in self._other_types.items():
            self._problems.add(OTHER_TYPES, f"{key} of {count} {of}")

    def images(self, listed: list) -> tuple[list[ListedImage], list[Id]]:
        """The images that have an id and a name, and the ids of the others."""
        images, unusable = [], []
        for number, entry in enumerate(listed):
            entry = entry if isinstance(entry, dict) else {}
            key = self._id(entry, "images", "id")
            file = image_name(entry)
            if key is None or file is None:
                values = dict(id=key, file_name=file)
                self._missing(NO_KEY, f"image number {number}", entry, values)
                unusable += [key] if key is not None else []
                continue
            width, height = (self._side(entry, side) for side in _SIDES)
            if width is None or height is None:
                sides = (f"{side} {typed(entry.get(side))}" for side in _SIDES)
                self._problems.add(NO_SIZE, f"{printable(file, 100)}: {few(sides)}")
                unusable.append(key)
                continue
            size = (width, height) if width and height else None
            images.append(ListedImage(key, file, size))
        return images, unusable

    def categories(self, listed: list) -> list[ListedCategory]:
        """The categories that have an id and a name."""
        categories = []
        for number, entry in enumerate(listed):
            entry = entry if isinstance(entry, dict) else {}
            key = self._id(entry, "categories", "id")
            name = self._class_name(entry.get("name"))
            if key is None or not name:
                values = dict(id=key, name=name)
                self._missing(NO_KEY, f"category number {number}", entry, values)
                continue
            categories.append(ListedCategory(key, name))
        return categories

    def objects(self, listed: list) -> list[ListedObject]:
        """The objects that have the ids of an image and of a category."""
        objects = []
        for number, entry in enumerate(listed):
            entry = entry if isinstance(entry, dict) else {}
            own_id = self._id(entry, "annotations", "id")
            name = f"object number {number}" if own_id is None else f"object {own_id}"
            image_id = self._id(entry, "annotations", "image_id")
            category_id = self._id(entry, "annotations", "category_id")
            if image_id is None or category_id is None:
                ids = dict(image_id=image_id, category_id=category_id)
                self._missing(NO_OBJECT_KEY, name, entry, ids)
                continue
            crowd, ignored = (self._flag(entry, key) for key in ("iscrowd", "ignore"))
            if crowd is None or ignored is None:
                key = "iscrowd" if crowd is None else "ignore"
                self._problems.add(NO_FLAG, f"{name}: {key} {typed(entry[key])}")
                continue
            objects.append(
                ListedObject(
                    name=name,
                    id=own_id,
                    image_id=image_id,
                    category_id=category_id,
                    bbox=_data(entry.get("bbox")),
                    segmentation=self._mask(name, _data(entry.get("segmentation"))),
                    area=entry.get("area"),
                    is_crowd=bool(crowd),
                    is_ignored=bool(ignored),
                )
            )
        return objects

    def _missing(
        self, problem: ProblemType, name: str, entry: Mapping, values: Mapping
    ) -> None:
        """Note the keys that an entry lacks, or has with a value that has no use.

        Args:
            values: what was read of each key; None or '' of those that are missing.
        """
        lacks = [
            f"{key} {typed(entry[key])}" if key in entry else f"no {key}"
            for key, value in values.items()
            if value in (None, "")
        ]
        keys = few((shown(key) for key in entry), _KEYS_NAMED) or "nothing"
        self._problems.add(problem, f"{name}: {', '.join(lacks)} (it has {keys})")

    def _number(self, value: object, of: str, key: str) -> int | None:
        """``whole_number``; a value of another type is counted.

        Args:
            of: the list that has the entry.
        """
        number = whole_number(value)
        if number is not None and type(value) is not int:
            self._other_types[of, key] += 1
        return number

    def _id(self, entry: Mapping, of: str, key: str) -> Id | None:
        """A number, or text that is none; None if the entry has no id."""
        value = entry.get(key)
        number = self._number(value, of, key)
        if number is None and isinstance(value, str):
            return value.strip() or None
        return number

    def _side(self, entry: Mapping, side: str) -> int | None:
        """Pixels; 0 if the file does not say; None if it is no number of pixels."""
        value = entry.get(side)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return 0
        number = self._number(value, "images", side)
        return number if number is not None and number >= 0 else None

    def _flag(self, entry: Mapping, key: str) -> int | None:
        """0 or 1; 0 if the file does not say; None if it is neither."""
        value = entry.get(key)
        if value is None or isinstance(value, bool):
            return int(bool(value))
        if isinstance(value, str) and value.strip().lower() in _FLAGS:
            value = _FLAGS[value.strip().lower()]
            self._other_types["annotations", key] += 1
            return value
        number = self._number(value, "annotations", key)
        return number if number in (0, 1) else None

    def _class_name(self, name: object) -> str:
        """The name of a class, which may be a number in the file; empty without one."""
        if not isinstance(name, str | int | float) or isinstance(name, bool):
            return ""
        text = unicodedata.normalize("NFC", str(name).strip())
        if why := class_name_problem(text):
            self._problems.add(BAD_NAME, f"{printable(text, 40)}: {why}")
            return printable(printable(text), LONGEST_NAME - len("..."))
        return text

    def _mask(self, name: str, mask: Any) -> Any:
        """A segmentation as COCO writes it; None if there is none."""
        if not mask or (isinstance(mask, list) and not any(_filled(m) for m in mask)):
            return None
        polygons = _from_points(mask)
        if polygons:
            self._problems.add(POINTS, name)
            return polygons
        return mask


def _filled(entry: Any) -> bool:
    """Whether an entry of a segmentation has anything: [[]] is no mask, as [] is."""
    return entry != [] and entry is not None


def _data(value: Any) -> Any:
    """A value, or the list or object that its text has: tables have such cells."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return parse_json(value, "it")
        except InputError:
            return value
    return value


def _from_points(mask: Any) -> list[list] | None:
    """The polygons of lists of points; None if it is no such list.

    >>> _from_points([[1, 2], [3, 4], [5, 6]])
    [[1, 2, 3, 4, 5, 6]]
    >>> _from_points([[{"x": 1, "y": 2}, {"x": 3, "y": 4}, {"x": 5, "y": 6}]])
    [[1, 2, 3, 4, 5, 6]]
    >>> _from_points([[1, 2, 3, 4, 5, 6]])
    """
    if not isinstance(mask, list) or _is_polygon(mask[0]):
        return None
    points = [_point(entry) for entry in mask]
    if len(points) > 2 and all(point is not None for point in points):
        return [[number for point in points if point for number in point]]
    polygons = []
    for entry in mask:
        inner = [_point(p) for p in entry] if isinstance(entry, list) else []
        if not inner or None in inner:
            return None
        polygons.append([number for point in inner if point for number in point])
    return polygons


def _is_polygon(entry: Any) -> bool:
    """Whether an entry of a segmentation is x, y, x, y, ..., as COCO writes it."""
    return (
        isinstance(entry, list)
        and len(entry) > 2
        and not isinstance(entry[0], list | dict)
    )


def _point(value: Any) -> list | None:
    """x and y of a point; None if the value is no point."""
    if isinstance(value, Mapping) and {"x", "y"} <= value.keys():
        return [value["x"], value["y"]]
    if isinstance(value, list) and len(value) == 2:
        return None if any(isinstance(v, list | dict) for v in value) else value
    return None
