"""Opens the content of an image file, after checks that bound time and memory.

A file of some kilobytes can be an image of gigabytes. So its header is checked before
any pixel is decoded, and ``image_structure`` checks its scans and tags. The format is
told from the content, never from the name, and no name is given to OpenCV, which
crashes at one that is not UTF-8.
"""

import functools
import io
import re
import threading
from contextlib import AbstractContextManager, nullcontext

import cv2
import numpy as np
import PIL.Image

from convnext_dense.errors import InputError

from . import foreign_formats
from .image_structure import (
    JPEG,
    PNG,
    check_jpeg_markers,
    check_tags,
    is_animated,
    size_in_tags,
)
from .memory import free_memory

GB = 1e9

# The formats, in Pillow's names, that toolboxes train on. Pillow knows more: to open
# EPS, it runs Ghostscript.
FORMATS = (
    *("JPEG", "PNG", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM", "GIF", "AVIF", "SUN"),
)
ANIMATIONS = ("GIF", "PNG", "WEBP", "AVIF")  # formats that can be animated
JPEG_FORMATS = ("JPEG", "MPO")  # Pillow calls a JPEG with several images MPO

# Pillow's own limit, 13377 x 13377. Decoding, predicting and drawing such an image
# takes more than 25 GB.
MOST_PIXELS = 178_956_970
DECODING = 8  # bytes of memory for each pixel: RGBA, and the pixels as OpenCV has them

ALWAYS_FREE = 64_000_000  # bytes
LARGE = 32_000_000  # pixels
_turn = threading.Lock()
TOO_LITTLE_MEMORY = "the memory is too small for it: cut it into tiles"

# OpenCV 4.12 and 5.0 crash the process at a damaged animated PNG. Before 4.11 OpenCV
# read the first image only.
ANIMATED_PNG_CRASHES = tuple(map(int, cv2.__version__.split(".")[:2])) >= (4, 11)

# Formats that OpenCV reads and Pillow does not. Their headers are text: Radiance HDR,
# PFM in colour, PAM.
_TEXT_HEADERS = (
    re.compile(rb"#\?R(?:GBE|ADIANCE)[^\0]{,4096}?\n[-+]Y (\d{1,9}) [-+]X (\d{1,9})\n"),
    re.compile(rb"PF\s+(\d{1,9})\s+(\d{1,9})\s"),
    re.compile(rb"P7\s(?:[^\0]{,4096}?\n)?WIDTH (\d{1,9})\s+HEIGHT (\d{1,9})\s"),
)


class UnknownFormatError(InputError):
    """The content is not an image in one of ``FORMATS``.

    Args:
        format_name: what it is and what to do with it; None if this is not known.
    """

    def __init__(self, format_name: str | None):
        self.format_name = format_name
        super().__init__(
            f"it is {format_name}"
            if format_name
            else "not an image, or not in a format that training reads: save it as "
            "JPEG or PNG"
        )


def open_image(content: bytes, animated: bool = False) -> PIL.Image.Image:
    """Open an image with Pillow, without decoding it.

    Args:
        content: all bytes of the file.
        animated: whether to open an animated PNG that OpenCV must not get.

    Raises:
        UnknownFormatError: it is not an image in one of ``FORMATS``.
        InputError: it is too large, or its metadata would take more time or memory
            than grows with the size of the file.
        OSError, ValueError, ...: what else Pillow raises for damaged files.
    """
    if content.startswith(JPEG):
        check_jpeg_markers(content)
    if (
        ANIMATED_PNG_CRASHES
        and not animated
        and content.startswith(PNG)
        and is_animated(content)
    ):
        raise InputError("it is an animated PNG: save one of its images as a PNG")
    check_tags(content)
    PIL.Image.init()  # else Pillow fails at a format that this build does not have
    formats = [name for name in FORMATS if name in PIL.Image.OPEN]
    try:
        image = PIL.Image.open(io.BytesIO(content), formats=formats)
    except PIL.UnidentifiedImageError as error:
        raise UnknownFormatError(foreign_formats.describe(content)) from error
    except PIL.Image.DecompressionBombError as error:
        number = re.search(r"\d+", str(error))
        pixels = f"{int(number[0]):,} pixels" if number else str(error)
        raise InputError(_too_many(pixels)) from error
    check_size(*image.size)
    check_exif(image)
    return image


def number_of_frames(image: PIL.Image.Image) -> int:
    """The number of images of an animation; 1 for other formats, whatever they hold."""
    return getattr(image, "n_frames", 1) if image.format in ANIMATIONS else 1


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
        size = _size_in_text(content) or size_in_tags(content)
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
