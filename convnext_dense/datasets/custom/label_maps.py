"""Reads label maps (a class for each pixel) and colour maps.

The pixels of a label map are class indices, indices of a palette, or colours.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnext_dense.errors import InputError
from convnext_dense.utils.files import read_bytes
from convnext_dense.utils.image_content import in_turn, open_image
from convnext_dense.utils.text import few

SUFFIXES = (".png", ".tif", ".tiff", ".bmp")  # formats that keep every value
IGNORED = 255  # the label of pixels that are not trained on
UNKNOWN = -1  # the label of a colour that is not in the colour map
IGNORED_NAMES = ("ignore", "ignored")

Color = tuple[int, ...]  # red, green, blue, each 0 to 255

_COLOR = r"(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})"
_COLOR_FIRST = re.compile(rf"^{_COLOR}[\s,;:]+(?P<name>\S.*)$")  # CamVid
_NAME_FIRST = re.compile(rf"^(?P<name>.+?)[\s,;:]+{_COLOR}\b")  # CVAT, class_dict.csv


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
        InputError: the file cannot be read, has no colours or a colour beyond 255, or
            two classes have one colour.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--color-map {file} cannot be read: {error}") from error
    if text.lstrip().startswith("{"):
        pairs = _json_pairs(file, text)
    else:
        pairs = _line_pairs(text)
    if not pairs:
        raise InputError(
            f"--color-map {file} has no colours: give a line for each class, such as "
            '"128 64 128 road"'
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
    colors = [[*color, classes.get(name, IGNORED)] for color, name in names.items()]
    return ColorMap(tuple(classes), colors)


def _json_pairs(file: str, text: str) -> list[tuple[str, Color]]:
    """Names and colours of a JSON object."""
    try:
        return [
            (str(name), tuple(int(channel) for channel in color))
            for name, color in json.loads(text).items()
        ]
    except (ValueError, TypeError) as error:
        raise InputError(
            f'--color-map {file} cannot be read as {{"road": [128, 64, 128], ...}}: '
            f"{error}"
        ) from error


def _line_pairs(text: str) -> list[tuple[str, Color]]:
    """Names and colours of lines; comments, headings and empty lines are left out."""
    lines = [line.strip() for line in text.splitlines()]
    matches = [
        _COLOR_FIRST.match(line) or _NAME_FIRST.match(line)
        for line in lines
        if line and not line.startswith("#")
    ]
    return [
        (
            match["name"].strip(),
            tuple(int(group) for group in match.groups() if group.isdecimal())[:3],
        )
        for match in matches
        if match
    ]


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
        labels = np.where(labels == IGNORED, IGNORED + 1, labels) - 1
    return labels


def _by_color(rgb: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """The class index of every pixel (H, W) of an image (H, W, 3)."""

    def code(channels: np.ndarray) -> np.ndarray:
        return channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]

    table = np.array(sorted(colors, key=lambda row: tuple(row[:3])), np.int32)
    known, codes = code(table), code(rgb)
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[place] == codes, table[place, 3], UNKNOWN)


def unknown_colors(file: Path, colors: Sequence[Sequence[int]]) -> str:
    """The first colours of a label map that are not in the colour map, as text."""
    with open_image(read_bytes(file)) as image:
        counted = image.convert("RGB").getcolors(2**24)
    known = {tuple(row[:3]) for row in colors}
    # Pillow returns None beyond so many colours; 2^24 is all there are.
    by_count = sorted(counted or [], reverse=True)
    return few(color for _, color in by_count if color not in known)
