"""Reads the parts that image files consist of, without decoding a pixel.

A file can repeat a scan a thousand times, or have thousands of tags that all refer to
the same megabyte. OpenCV and Pillow would follow each of them.
"""

import itertools
import re
import struct
from collections.abc import Iterator
from typing import Literal, TypeAlias

from convnext_dense.errors import InputError

PNG = b"\x89PNG\r\n\x1a\n"  # the first bytes of such a file
JPEG = b"\xff\xd8"

MOST_SCANS = 100  # of a progressive JPEG; encoders write about ten
# Bytes that the tags of a file refer to together, in multiples of the file's size.
# Valid tags refer to different bytes.
MOST_SHARED = 16

_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # the others have no size
_START_OF_SCAN, _END_OF_IMAGE, _APP1, _APP2 = 0xDA, 0xD9, 0xE1, 0xE2

# The bytes of a value, by the number of its TIFF type.
_SIZES = {
    **{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8},
    **{13: 4, 16: 8, 17: 8, 18: 8},
}
_INTEGERS = (1, 3, 4, 13, 16, 18)  # types without a sign
WIDTH, HEIGHT = 256, 257  # tags

MOST_PAGES = 1000
MOST_TAGS = 200  # of a page
MOST_VALUES = 64  # of a tag; a file has one for each band

ByteOrder: TypeAlias = Literal["little", "big"]


def is_animated(content: bytes) -> bool:
    """Whether a PNG has one of the chunks of an animation, at any place."""
    place = len(PNG)
    while place + 8 <= len(content):
        if content[place + 4 : place + 8] in (b"acTL", b"fcTL", b"fdAT"):
            return True
        place += 12 + int.from_bytes(content[place : place + 4], "big")
    return False


def check_jpeg_markers(content: bytes) -> None:
    """Check the number of scans of a JPEG, and the tags in its segments.

    Raises:
        InputError: there are more than ``MOST_SCANS`` scans or segments of tags, or
            ``check_tags`` refuses the tags.
    """
    scans = segments = 0
    place = 2
    while match := _JPEG_MARKER.search(content, place):
        marker, start = match[1][0], match.end()
        size = int.from_bytes(content[start : start + 2], "big")
        if marker == _END_OF_IMAGE:
            break
        scans += marker == _START_OF_SCAN
        if marker in (_APP1, _APP2):
            segment = content[start + 2 : start + size]
            for name in (b"Exif\0\0", b"MPF\0"):
                if segment.startswith(name):
                    segments += 1
                    check_tags(segment[len(name) :])
        if max(scans, segments) > MOST_SCANS:
            raise InputError(
                f"it has more than {MOST_SCANS} scans or segments of EXIF data, which "
                "take too long to read: save it again"
            )
        place = start + max(size, 2)


def check_tags(content: bytes) -> None:
    """Check the tags of a TIFF file, or of EXIF data, which are in the same format.

    Each tag can refer to a value of any size at any place, so that all of them can
    refer to the whole file, and reading them takes quadratic time and memory.

    Raises:
        InputError: they refer to more than ``MOST_SHARED`` times the content.
    """
    shared = sum(
        min(_SIZES.get(value_type, 1) * count, len(content))
        for _, _, value_type, count, _ in _tags(content)
    )
    if shared > MOST_SHARED * len(content):
        raise InputError(
            f"its tags refer to {shared:,} bytes, and the file has {len(content):,}: "
            "save it again"
        )


def _header(content: bytes) -> tuple[ByteOrder, str, bool] | None:
    """Byte order, its sign for ``struct``, and whether a TIFF is a BigTIFF."""
    orders: dict[bytes, tuple[ByteOrder, str]]
    orders = {b"II": ("little", "<"), b"MM": ("big", ">")}
    if content[:2] not in orders or len(content) < 16:
        return None
    name, order = orders[content[:2]]
    return name, order, struct.unpack_from(f"{order}H", content, 2)[0] == 43


def _tags(
    content: bytes, start: int | None = None
) -> Iterator[tuple[ByteOrder, int, int, int, bytes]]:
    """Byte order, tag, type, number of values, and value or place of a page's tags.

    Nothing for content in another format, or cut short.

    Args:
        start: place of the page's tags; None for the first page.
    """
    if (header := _header(content)) is None:
        return
    name, order, big = header
    number, entry = ("Q", "HHQ8s") if big else ("H", "HHI4s")
    try:
        if start is None:
            (start,) = struct.unpack_from(
                order + ("Q" if big else "I"), content, 8 if big else 4
            )
        (count,) = struct.unpack_from(order + number, content, start)
    except struct.error:
        return
    start += struct.calcsize(order + number)
    length = struct.calcsize(order + entry)
    count = min(count, max(0, len(content) - start) // length)
    entries = memoryview(content)[start : start + count * length]
    for tag in struct.iter_unpack(order + entry, entries):
        yield name, *tag


def size_in_tags(content: bytes) -> tuple[int, int] | None:
    """Width and height of a TIFF image, such as floats in colour; None for another."""
    page = next(tiff_pages(content), {})
    if WIDTH not in page or HEIGHT not in page:
        return None
    return page[WIDTH][0], page[HEIGHT][0]


def tiff_pages(content: bytes) -> Iterator[dict[int, list[int]]]:
    """The integers in the tags of each page of a TIFF file, by the number of the tag.

    The pages end at a place that was read before, or after ``MOST_PAGES``. Of a page,
    the first ``MOST_TAGS`` are read, and of a tag, the first ``MOST_VALUES`` values.
    """
    if (header := _header(content)) is None:
        return
    _, order, big = header
    number, entry, word = ("Q", 20, "Q") if big else ("H", 12, "I")
    seen: set[int] = set()
    try:
        (start,) = struct.unpack_from(order + word, content, 8 if big else 4)
        while start and start not in seen and len(seen) < MOST_PAGES:
            seen.add(start)
            yield {
                tag: values
                for name, tag, value_type, count, value in itertools.islice(
                    _tags(content, start), MOST_TAGS
                )
                if (values := _integers(content, name, value_type, count, value))
            }
            (count,) = struct.unpack_from(order + number, content, start)
            end = start + struct.calcsize(order + number) + count * entry
            (start,) = struct.unpack_from(order + word, content, end)
    except struct.error:  # the file is cut short
        return


def _integers(
    content: bytes, order: ByteOrder, value_type: int, count: int, value: bytes
) -> list[int]:
    """The first values of a tag; none if they are no integers, or not in the file."""
    size = _SIZES.get(value_type, 0)
    if value_type not in _INTEGERS or not count:
        return []
    if size * count > len(value):  # then the value is a place
        start = int.from_bytes(value, order)
        value = content[start : start + size * min(count, MOST_VALUES)]
    count = min(count, MOST_VALUES, len(value) // size)
    return [
        int.from_bytes(value[size * i : size * (i + 1)], order) for i in range(count)
    ]
