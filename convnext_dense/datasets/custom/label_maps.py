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
from convnext_dense.utils.files import read_text
from convnext_dense.utils.json_files import parse_json
from convnext_dense.utils.text import few

from .label_files import MISSING, read_colors, read_values
from .problems import class_name_problem

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
_NUMBERED = re.compile(r"\d+\s*[,;:\t]\s*(\S.*)")


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
    (CamVid), ``name: r, g, b`` (CVAT's labelmap.txt), ``name,r,g,b`` or
    ``id,name,r,g,b``. Colours of one
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
    matches = [_NUMBERED.fullmatch(name) for name, _ in pairs]
    if all(matches):  # 0,road,128,64,128
        return [(m[1], c) for m, (_, c) in zip(matches, pairs, strict=True) if m]
    return pairs


def color_lines(lines: Sequence[str]) -> int:
    """How many of some lines have a colour and a name, as in a colour map."""
    return len(_line_pairs("\n".join(lines)))


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


def read_label_map(
    file: str | Path,
    colors: Sequence[Sequence[int]] | None = None,
    zero: bool = True,
    ids: Sequence[int] | None = None,
) -> np.ndarray:
    """Read the class index of every pixel, (H, W) int32; 255 is not trained on.

    Args:
        file: an image or a NumPy file, see ``label_files``. Colours need ``colors``.
        colors: rows of red, green, blue and class index. A grey value is the colour
            of three equal channels. A colour in no row becomes ``UNKNOWN``.
        zero: False if 0 is not a class, see ``to_labels``.
        ids: the value of each class, see ``to_labels``.

    Raises:
        NotALabelMap: the file has colours, and there are no ``colors``; or it has no
            label map.
        InputError: it is not a regular file, not an image, or too large.
    """
    return to_labels(read_numbers(file, colors), zero, ids)


def read_numbers(
    file: str | Path, colors: Sequence[Sequence[int]] | None = None
) -> np.ndarray:
    """Read the number of every pixel, (H, W) int32: a value, or a colour's class.

    Raises:
        NotALabelMap, InputError: as ``read_label_map``.
    """
    if colors is None:
        return read_values(file)
    return _by_color(read_colors(file), colors)


def to_labels(
    numbers: np.ndarray, zero: bool = True, ids: Sequence[int] | None = None
) -> np.ndarray:
    """The class index of each number of ``read_numbers``; 255 is not trained on.

    Args:
        zero: False if 0 is not a class: 0 becomes 255, and without ``ids`` 1 becomes 0
            (mmseg's ``reduce_zero_label``).
        ids: the value of each class; another value becomes ``UNKNOWN``, but 255 stays.
            None if the values are the class indices.
    """
    missing = numbers == MISSING
    zeros = numbers == 0
    if ids is not None:
        order = np.argsort(ids)
        values = np.asarray(ids)[order]
        place = np.searchsorted(values, numbers).clip(max=len(values) - 1)
        other = np.where(numbers == IGNORED, IGNORED, UNKNOWN)
        labels = np.where(values[place] == numbers, order[place], other)
        labels = labels.astype(np.int32)
    elif zero:
        labels = numbers.copy()
    else:
        labels = np.where((numbers > 0) & (numbers < IGNORED), numbers - 1, numbers)
    if not zero:
        labels[zeros] = IGNORED
    labels[missing] = IGNORED
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
    codes = _codes(read_colors(file))
    known = _codes(np.array(colors, np.int32).reshape(-1, 4))
    codes, numbers = np.unique(codes[~np.isin(codes, known)], return_counts=True)
    by_count = codes[np.argsort(-numbers, kind="stable")][:COLORS_NAMED].tolist()
    return few((code >> 16, code >> 8 & 255, code & 255) for code in by_count) + (
        f" and {len(codes) - COLORS_NAMED} more" if len(codes) > COLORS_NAMED else ""
    )
