"""Opens the content of an image file, after checks that bound time and memory.

A file of some kilobytes can be an image of gigabytes, have thousands of tags that all
refer to the same megabyte, or repeat a scan a thousand times. So the header is checked
before any pixel is decoded. The format is told from the content, never from the name,
and no name is given to OpenCV, which crashes at one that is not UTF-8.
"""

import functools
import io
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeAlias

import cv2
import numpy as np
import PIL.Image

from convnext_dense.errors import InputError

from .memory import free_memory

GB = 1e9

# The formats, in Pillow's names, that toolboxes train on. Pillow knows more: to open
# EPS, it runs Ghostscript.
FORMATS = (
    *("JPEG", "PNG", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM", "GIF", "AVIF", "SUN"),
)
JPEG_FORMATS = ("JPEG", "MPO")  # Pillow calls a JPEG with several images MPO

# Pillow's own limit, 13377 x 13377. Decoding, predicting and drawing such an image
# takes more than 25 GB.
MOST_PIXELS = 178_956_970
DECODING = 8  # bytes of memory for each pixel: RGBA, and the pixels as OpenCV has them

ALWAYS_FREE = 64_000_000  # bytes
LARGE = 32_000_000  # pixels
_turn = threading.Lock()
TOO_LITTLE_MEMORY = "the memory is too small for it: cut it into tiles"

MOST_SCANS = 100  # of a progressive JPEG; encoders write about ten
# Bytes that the tags of a file refer to together, in multiples of the file's size.
# Valid tags refer to different bytes.
MOST_SHARED = 16

# Formats that OpenCV reads and Pillow does not. Their headers are text: Radiance HDR,
# PFM in colour, PAM.
_TEXT_HEADERS = (
    re.compile(rb"#\?R(?:GBE|ADIANCE)[^\0]{,4096}?\n[-+]Y (\d{1,9}) [-+]X (\d{1,9})\n"),
    re.compile(rb"PF\s+(\d{1,9})\s+(\d{1,9})\s"),
    re.compile(rb"P7\s(?:[^\0]{,4096}?\n)?WIDTH (\d{1,9})\s+HEIGHT (\d{1,9})\s"),
)
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # the others have no size
_START_OF_SCAN, _END_OF_IMAGE, _APP1, _APP2 = 0xDA, 0xD9, 0xE1, 0xE2

# The bytes of a value, by the number of its TIFF type.
_SIZES = {
    **{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8},
    **{13: 4, 16: 8, 17: 8, 18: 8},
}
_WIDTH, _HEIGHT = 256, 257  # tags


ByteOrder: TypeAlias = Literal["little", "big"]


class UnknownFormatError(InputError):
    """The content is not an image in one of ``FORMATS``."""


def open_image(content: bytes) -> PIL.Image.Image:
    """Open an image with Pillow, without decoding it.

    Args:
        content: all bytes of the file.

    Raises:
        UnknownFormatError: it is not an image in one of ``FORMATS``.
        InputError: it is too large, or its metadata would take more time or memory
            than grows with the size of the file.
        OSError, ValueError, ...: what else Pillow raises for damaged files.
    """
    if content.startswith(b"\xff\xd8"):
        _check_jpeg_markers(content)
    check_tags(content)
    PIL.Image.init()  # else Pillow fails at a format that this build does not have
    formats = [name for name in FORMATS if name in PIL.Image.OPEN]
    try:
        image = PIL.Image.open(io.BytesIO(content), formats=formats)
    except PIL.UnidentifiedImageError as error:
        raise UnknownFormatError(
            "not an image, or not in a format that training reads: save it as JPEG or "
            "PNG"
        ) from error
    except PIL.Image.DecompressionBombError as error:
        number = re.search(r"\d+", str(error))
        pixels = f"{int(number[0]):,} pixels" if number else str(error)
        raise InputError(_too_many(pixels)) from error
    check_size(*image.size)
    check_exif(image)
    return image


def check_exif(image: PIL.Image.Image) -> None:
    """Check the tags in the EXIF data of an opened image.

    A PNG must be loaded first, whose EXIF data may follow the pixels.

    Raises:
        InputError: as ``check_tags``.
    """
    if isinstance(tags := image.info.get("exif"), bytes):
        check_tags(tags.removeprefix(b"Exif\0\0"))


def check_size(width: int, height: int, bytes_per_pixel: int = DECODING) -> None:
    """Check that an image has no more pixels than are allowed and fit into memory.

    Args:
        width, height: as the file's header says, in pixels.
        bytes_per_pixel: the memory that will be used for each pixel.

    Raises:
        InputError: it has more.
    """
    if width * height > MOST_PIXELS:
        raise InputError(_too_many(f"{width} x {height} pixels"))
    needed = width * height * bytes_per_pixel
    free = free_memory() if needed > ALWAYS_FREE else None
    if free is not None and needed > free:
        raise InputError(
            f"{width} x {height} pixels need {needed / GB:.1f} GB of memory, and "
            f"{free / GB:.1f} GB are free: cut it into tiles"
        )


def in_turn(width: int, height: int) -> AbstractContextManager:
    """A context to decode an image in: of large images one at a time, for all threads.

    ``check_size`` compares each image for itself to the free memory.
    """
    return _turn if width * height > LARGE else nullcontext()


def _too_many(size: str) -> str:
    return f"{size}, and the most are {MOST_PIXELS:,}: cut it into tiles"


def check_image(content: bytes) -> tuple[int, int]:
    """Check the header of an image that OpenCV will decode; nothing is decoded.

    Args:
        content: all bytes of the file.

    Returns:
        width and height in the file, in pixels.

    Raises:
        InputError: as ``open_image``; but some images that Pillow does not know and
            OpenCV does are accepted.
    """
    try:
        with open_image(content) as image:
            return image.size
    except UnknownFormatError:
        size = _size_in_text(content) or _size_in_tags(content)
        if size is None:
            raise
        check_size(*size)
        return size
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise errors of many types
        raise InputError(f"it is damaged: {error}") from error


def _size_in_text(content: bytes) -> tuple[int, int] | None:
    """Width and height of an HDR, PFM or PAM image; None for another format."""
    for header in _TEXT_HEADERS:
        if match := header.match(content):
            first, second = int(match[1]), int(match[2])
            # Only HDR has the height first.
            return (second, first) if content.startswith(b"#?") else (first, second)
    return None


def _size_in_tags(content: bytes) -> tuple[int, int] | None:
    """Width and height of a TIFF image, such as floats in colour; None for another."""
    sizes = {
        tag: int.from_bytes(value[: _SIZES.get(value_type, 1)], order)
        for order, tag, value_type, _, value in _tags(content)
        if tag in (_WIDTH, _HEIGHT)
    }
    return (sizes[_WIDTH], sizes[_HEIGHT]) if len(sizes) == 2 else None


@functools.cache
def opencv_reads(image_format: str) -> bool:
    """Whether this build of OpenCV decodes a format, tried with a small image.

    OpenCV itself answers only for files, and must not get their names.

    Args:
        image_format: a name in ``FORMATS``, or MPO.
    """
    if image_format in (*JPEG_FORMATS, "PNG", "SUN"):  # in every build
        return True
    sample = io.BytesIO()
    PIL.Image.new("RGB", (16, 16)).save(sample, image_format)
    return decode(sample.getvalue(), cv2.IMREAD_COLOR) is not None


def _check_jpeg_markers(content: bytes) -> None:
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


def _tags(content: bytes) -> Iterator[tuple[ByteOrder, int, int, int, bytes]]:
    """Byte order, tag, type, number of values, and value or place of the first tags.

    Nothing for content in another format, or cut short.
    """
    orders: dict[bytes, tuple[ByteOrder, str]]
    orders = {b"II": ("little", "<"), b"MM": ("big", ">")}
    if content[:2] not in orders:
        return
    name, order = orders[content[:2]]
    try:
        big = struct.unpack_from(f"{order}H", content, 2)[0] == 43  # BigTIFF
        number, entry = ("Q", "HHQ8s") if big else ("H", "HHI4s")
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


def decode(content: bytes, flags: int) -> np.ndarray | None:
    """Decode an image with OpenCV; None if it cannot.

    Args:
        flags: OpenCV's, such as ``cv2.IMREAD_COLOR``.

    Raises:
        InputError: the memory is too small.
    """
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except MemoryError as error:
        raise InputError(TOO_LITTLE_MEMORY) from error
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise InputError(TOO_LITTLE_MEMORY) from error
        return None  # such as an empty file
