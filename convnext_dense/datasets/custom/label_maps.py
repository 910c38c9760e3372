"""Label maps: a class a pixel, as indices, with a palette, or as colours."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image

from convnext_dense.errors import InputError

from .problems import few

SUFFIXES = (".png", ".tif", ".tiff", ".bmp")  # none that loses values
IGNORED = 255
UNKNOWN = -1  # a colour that is not in the colour map
IGNORED_NAMES = ("ignore", "ignored")

_COLOR = r"(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})"
_COLOR_FIRST = re.compile(rf"^{_COLOR}[\s,;:]+(?P<name>\S.*)$")  # CamVid
_NAME_FIRST = re.compile(rf"^(?P<name>.+?)[\s,;:]+{_COLOR}\b")  # CVAT, class_dict.csv


class ColorMap(NamedTuple):
    """Which colour is which class.

    Attributes:
        classes: their names.
        colors: rows of red, green, blue and class index, 255 to ignore it.
    """

    classes: tuple[str, ...]
    colors: list[list[int]]


def read_color_map(file: str) -> ColorMap:
    """Read a colour map: a JSON object of name to [r, g, b], or lines of
    ``r g b name``, ``name: r, g, b`` (CVAT's labelmap.txt) or ``name,r,g,b``.

    Colours of one name are one class; those of the name 'ignore' are not trained on.

    Raises:
        InputError: it cannot be read, or two classes have one colour.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--color-map {file} cannot be read: {error}") from error
    pairs = _json_pairs(text) if text.lstrip().startswith("{") else _line_pairs(text)
    if not pairs:
        raise InputError(
            f"--color-map {file} has no colours: give a line for each class, such as "
            '"128 64 128 road"'
        )
    classes, names = {}, {}
    for name, color in pairs:
        if len(color) != 3 or not all(0 <= part <= 255 for part in color):
            raise InputError(f"--color-map {file}: {name} is {color}, not 3 x 0 to 255")
        if names.setdefault(color, name) != name:
            raise InputError(
                f"--color-map {file}: {names[color]} and {name} are both {color}"
            )
        if name.lower() not in IGNORED_NAMES:
            classes.setdefault(name, len(classes))
    colors = [[*color, classes.get(name, IGNORED)] for color, name in names.items()]
    return ColorMap(tuple(classes), colors)


def _json_pairs(text: str):
    try:
        return [
            (str(name), tuple(int(part) for part in color))
            for name, color in json.loads(text).items()
        ]
    except (ValueError, TypeError) as error:
        raise InputError(
            f'--color-map: not {{"road": [128, 64, 128], ...}}: {error}'
        ) from error


def _line_pairs(text: str):
    lines = [line.strip() for line in text.splitlines()]
    matches = [
        _COLOR_FIRST.match(line) or _NAME_FIRST.match(line)
        for line in lines
        if line and not line.startswith("#")
    ]
    return [
        (
            match["name"].strip(),
            tuple(int(g) for g in match.groups() if g.isdecimal())[:3],
        )
        for match in matches
        if match  # else a heading
    ]


class NotALabelMap(ValueError):
    """Why a file is no label map that can be read here."""


def read_label_map(
    file: Path, colors: Sequence[Sequence[int]] | None = None, zero: bool = True
) -> np.ndarray:
    """The class index of every pixel, (H, W) int32; 255 is not trained on.

    Args:
        file: grey of 8 or 16 bits, or with a palette, whose indices count; RGB, with
            ``colors``.
        colors: rows of red, green, blue and class index. A grey value is the colour
            of three equal parts. ``UNKNOWN`` where a colour is in none.
        zero: False: 0 is not a class but ignored, and 1 becomes 0 (mmseg's
            ``reduce_zero_label``).

    Raises:
        NotALabelMap: it is not.
    """
    with PIL.Image.open(file) as image:
        image.load()
        if colors is not None:
            labels = _by_color(np.asarray(image.convert("RGB"), np.int32), colors)
        elif image.mode in ("P", "L", "1", "I", "I;16", "I;16B", "F"):
            labels = np.asarray(image).astype(np.int32)
        else:
            rgb = np.asarray(image.convert("RGB"), np.int32)
            labels = rgb[..., 0]
            if (labels[..., None] != rgb).any():
                raise NotALabelMap("in colours; say with --color-map which is which")
    if not zero:
        labels = np.where(labels == 0, IGNORED + 1, labels)
        labels = np.where(labels == IGNORED, IGNORED + 1, labels) - 1
    return labels


def _by_color(rgb: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    def code(parts):
        return parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2]

    table = np.array(sorted(colors, key=lambda row: tuple(row[:3])), np.int32)
    known, here = code(table), code(rgb)
    place = np.searchsorted(known, here).clip(max=len(known) - 1)
    return np.where(known[place] == here, table[place, 3], UNKNOWN)


def color_names(file: Path, colors: Sequence[Sequence[int]]) -> str:
    """The first colours of a file that are not in the map."""
    with PIL.Image.open(file) as image:
        counted = image.convert("RGB").getcolors(2**24)
    known = {tuple(row[:3]) for row in colors}
    return few([str(color) for _, color in sorted(counted)[::-1] if color not in known])
