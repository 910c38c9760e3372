"""Reads label maps (a class for each pixel) and colour maps.

The pixels of a label map are class indices, indices of a palette, or colours.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnext_dense.errors import InputError, printable
from convnext_dense.utils.files import read_bytes, read_text
from convnext_dense.utils.image_content import in_turn, open_image
from convnext_dense.utils.json_files import parse_json
from convnext_dense.utils.text import few

from .problems import class_name_problem

SUFFIXES = (".png", ".tif", ".tiff", ".bmp")  # formats that keep every value
IGNORED = 255  # the label of pixels that are not trained on
UNKNOWN = -1  # the label of a colour that is not in the colour map
IGNORED_NAMES = ("ignore", "ignored")
MOST_CLASSES = IGNORED  # the labels of classes are 0 to 254
COLORS_NAMED = 3  # in a message about a label map
MOST_COLORS = 4096  # of a colour map; the config of a run lists them

Color = tuple[int, ...]  # red, green, blue, each 0 to 255

_COLOR = r"(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})"
_COLOR_FIRST = re.compile(rf"^{_COLOR}[\s,;:]+(?P<name>\S.*)$")  # CamVid
# CVAT, class_dict.csv. A search that starts within a run of spaces fails at once: else
# long runs take quadratic time.
_AFTER_NAME = re.compile(rf"(?<![\s,;:])[\s,;:]+{_COLOR}\b")


class ColorMap(NamedTuple):
    """The class of each colour.

    Attributes:
        classes: the names of the classes.
        colors: rows of red, green, blue and class index; index 255 is ignored.
    """

    classes: tuple[str, ...]
    colors: list[list[int]]


def read_color_map(file: str) -> ColorMap:
    """Read a colour map.

    The file is a JSON object of name to [r, g, b], or it has lines of ``r g b name``
    (CamVid), ``name: r, g, b`` (CVAT's labelmap.txt) or ``name,r,g,b``. Colours of one
    name are one class. Colours of the name 'ignore' are not trained on.

    Raises:
        InputError: the file cannot be read, has no colours or a colour beyond 255, two
            classes have one colour, or there are too many colours or classes.
    """
    try:
        text = read_text(file)
    except InputError as error:
        raise InputError(f"--color-map {error}") from error
    if text.lstrip().startswith("{"):
        pairs = _json_pairs(file, text)
    else:
        pairs = _line_pairs(text)
    if not pairs:
        raise InputError(
            f"--color-map {file} has no colours: give a line for each class, such as "
            '"128 64 128 road"'
        )
    if len(pairs) > MOST_COLORS:
        raise InputError(
            f"--color-map {file} has more than {MOST_COLORS} colours: leave some out"
        )
    classes: dict[str, int] = {}
    names: dict[Color, str] = {}
    for name, color in pairs:
        if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
            raise InputError(
                f"--color-map {file}: {name} has the colour {color}: give three "
                "numbers from 0 to 255"
            )
        if names.setdefault(color, name) != name:
            raise InputError(
                f"--color-map {file}: {names[color]} and {name} both have the colour "
                f"{color}: give each class its own"
            )
        if name.lower() not in IGNORED_NAMES:
            classes.setdefault(name, len(classes))
    check_classes(f"--color-map {file}", list(classes))
    colors = [[*color, classes.get(name, IGNORED)] for color, name in names.items()]
    return ColorMap(tuple(classes), colors)


def _json_pairs(file: str, text: str) -> list[tuple[str, Color]]:
    """Names and colours of a JSON object."""
    content = parse_json(text, f"--color-map {file}")
    try:
        return [
            (str(name), tuple(int(channel) for channel in color))
            for name, color in content.items()
        ]
    except (ValueError, TypeError, OverflowError) as error:  # OverflowError: Infinity
        raise InputError(
            f'--color-map {file} cannot be read as {{"road": [128, 64, 128], ...}}: '
            f"{error}"
        ) from error


def _line_pairs(text: str) -> list[tuple[str, Color]]:
    """Names and colours of lines; comments, headings and empty lines are left out."""
    pairs: list[tuple[str, Color]] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#"):
            continue
        if match := _COLOR_FIRST.match(line):
            name = match["name"]
        elif (match := _AFTER_NAME.search(line)) and match.start():
            name = line[: match.start()]
        else:
            continue
        red, green, blue = match.groups()[:3]
        pairs.append((name.strip(), (int(red), int(green), int(blue))))
        if len(pairs) > MOST_COLORS:
            break
    return pairs


def check_classes(source: str, names: Sequence[str]) -> None:
    """Check the names of the classes of label maps.

    Args:
        source: where they are from, for messages.

    Raises:
        InputError: there are too many, one cannot be a name, or one is there twice.
    """
    if len(names) > MOST_CLASSES:
        raise InputError(
            f"{source} has {len(names)} classes: label maps have at most "
            f"{MOST_CLASSES}, as {IGNORED} is ignored"
        )
    for name, number in Counter(names).items():
        if number > 1:
            raise InputError(
                f"{source}: {name} is given twice: give each class one name"
            )
        if why := class_name_problem(name):
            raise InputError(
                f"{source}: {printable(name, 40)} cannot be the name of a class: {why}"
            )


class NotALabelMap(ValueError):
    """The reason why an image file cannot be read as a label map."""


def read_label_map(
    file: Path, colors: Sequence[Sequence[int]] | None = None, zero: bool = True
) -> np.ndarray:
    """Read the class index of every pixel, (H, W) int32; 255 is not trained on.

    Args:
        file: grey values of 8 or 16 bits, a palette, whose indices count, or colours,
            which need ``colors``.
        colors: rows of red, green, blue and class index. A grey value is the colour
            of three equal channels. A colour in no row becomes ``UNKNOWN``.
        zero: False if 0 is not a class: 0 becomes 255, and 1 becomes 0 (mmseg's
            ``reduce_zero_label``).

    Raises:
        NotALabelMap: the file has colours, and there are no ``colors``.
        InputError: it is not a regular file, not an image, or too large.
    """
    with open_image(read_bytes(file)) as image, in_turn(*image.size):
        image.load()
        if colors is not None:
            labels = _by_color(np.asarray(image.convert("RGB"), np.int32), colors)
        elif image.mode in ("P", "L", "1", "I", "I;16", "I;16B", "F"):
            labels = np.asarray(image).astype(np.int32)
        else:
            rgb = np.asarray(image.convert("RGB"), np.int32)
            labels = rgb[..., 0]
            if (labels[..., None] != rgb).any():
                raise NotALabelMap(
                    "its pixels are colours; name the class of each with --color-map"
                )
    if not zero:
        labels = np.where(labels == 0, IGNORED + 1, labels)
        labels = np.where(labels == IGNORED, IGNORED + 1, labels)
        labels = np.where(labels == UNKNOWN, UNKNOWN, labels - 1)
    return labels


def _by_color(rgb: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """The class index of every pixel (H, W) of an image (H, W, 3)."""
    table = np.array(sorted(colors, key=lambda row: tuple(row[:3])), np.int32)
    known, codes = _codes(table), _codes(rgb)
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[place] == codes, table[place, 3], UNKNOWN)


def _codes(colors: np.ndarray) -> np.ndarray:
    """A number for each colour of an array (..., 3 or more)."""
    return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]


def unknown_colors(file: Path, colors: Sequence[Sequence[int]]) -> str:
    """Colours of a label map that are not in the colour map, the most frequent ones."""
    with open_image(read_bytes(file)) as image, in_turn(*image.size):
        codes = _codes(np.asarray(image.convert("RGB"), np.int32))
    known = _codes(np.array(colors, np.int32).reshape(-1, 4))
    codes, numbers = np.unique(codes[~np.isin(codes, known)], return_counts=True)
    by_count = codes[np.argsort(-numbers, kind="stable")][:COLORS_NAMED].tolist()
    return few((code >> 16, code >> 8 & 255, code & 255) for code in by_count) + (
        f" and {len(codes) - COLORS_NAMED} more" if len(codes) > COLORS_NAMED else ""
    )
