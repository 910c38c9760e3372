"""Reads image files: whether they are whole, how large they are, their digests."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import PIL.Image
from rich.progress import track

from convnext_dense.errors import InputError, printable

from . import files
from .image_content import (
    JPEG_FORMATS,
    TOO_LITTLE_MEMORY,
    UnknownFormatError,
    check_exif,
    check_image,
    decode,
    in_turn,
    number_of_frames,
    open_image,
    opencv_reads,
)
from .image_values import check_range, check_values, has_unusual_compression

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".ppm")
# The EXIF tag that says how the camera was held: 1 is upright, 5 to 8 swap the sides.
ORIENTATION = 0x0112

# The longest side of an image, in multiples of the shorter one. Resized to a longer
# side of 1333 pixels, as COCO's images are, such an image has 13 pixels on the other.
LONGEST = 100
SMALLEST = 32  # pixels of a side; the deepest feature map of a smaller image is empty

T = TypeVar("T")
R = TypeVar("R")


class ImageFile(NamedTuple):
    """What was read from an image file.

    Attributes:
        error: why training cannot use it; None if it can.
        stored: width and height in the file, in pixels.
        orientation: EXIF's, 1 to 8.
        digest: equal for files with the same bytes.
        note: what of the image training does not read; None if it reads all.
    """

    error: str | None = None
    stored: tuple[int, int] = (0, 0)
    orientation: int = 1
    digest: bytes = b""
    note: str | None = None

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height after the turn by EXIF, as viewers and training see it."""
        width, height = self.stored
        return (height, width) if self.orientation >= 5 else self.stored


def list_images(folder: Path) -> list[str]:
    """The image files in a folder and below it, sorted, relative and with '/'."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def read_images(paths: Iterable[Path], title: str) -> dict[Path, ImageFile]:
    """Read each file to its end, as training does, with a progress bar."""
    unique = list(dict.fromkeys(paths))
    return dict(zip(unique, for_all(_read_image, unique, title), strict=True))


def for_all(function: Callable[[T], R], items: Sequence[T], title: str) -> list[R]:
    """Call ``function`` on each item, in a thread for each core.

    Args:
        title: of the progress bar, which only a terminal shows.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(function, items)
        hidden = not sys.stdout.isatty()
        return list(
            track(results, title, total=len(items), transient=True, disable=hidden)
        )


def read_rgb(path: Path) -> np.ndarray:
    """Decode an image file, (H, W, 3) RGB uint8, turned by EXIF.

    Raises:
        InputError: it is not a regular file, OpenCV cannot decode it, or it is too
            large.
    """
    content = files.read_bytes(path)
    try:
        check_image(content)
        check_values(content)
        bgr = decode(content, cv2.IMREAD_COLOR)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if bgr is None:
        raise InputError(f"{path} cannot be decoded as an image")
    return bgr[..., ::-1]


def encode(suffix: str, image: np.ndarray) -> bytes:
    """The content of an image file.

    Writing it is better than cv2.imwrite, which does not say why it failed, and
    crashes at a name that is not UTF-8.

    Args:
        suffix: of the format, such as '.png'.
        image: (H, W, 3) BGR or (H, W), as OpenCV has it.
    """
    return cv2.imencode(suffix, image)[1].tobytes()


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image in the format of the path's suffix; a whole file or none.

    Args:
        image: as ``encode``.

    Raises:
        InputError: the file cannot be written, or the format cannot hold the image.
    """
    with files.whole(path) as partial:
        partial.write_bytes(encode(path.suffix, image))


@contextmanager
def unnamed(path: Path) -> Iterator[None]:
    """Write 'it' for the path at the beginning of an InputError's message.

    For lists of files with what is wrong with each.
    """
    try:
        yield
    except InputError as error:
        message = str(error).removeprefix(printable(str(path)))
        raise InputError(f"it{message}") from error


def _read_image(path: Path) -> ImageFile:
    try:
        with unnamed(path):
            content = files.read_bytes(path)
        if not content:
            return ImageFile("empty file")
        digest = hashlib.blake2b(content, digest_size=16).digest()
        note = check_values(content)
        try:
            stored, orientation, animation = _decoded_whole(content)
        except ValueError as error:
            if isinstance(error, InputError) and type(error) is not UnknownFormatError:
                raise
            # OpenCV reads some images that Pillow does not, such as a TIFF of four
            # bands in planes.
            stored, orientation, animation = check_image(content), 1, None
            with in_turn(*stored):
                if decode(content, cv2.IMREAD_COLOR) is None:
                    raise
    except MemoryError:
        return ImageFile(TOO_LITTLE_MEMORY)
    except Exception as error:  # Pillow's readers raise errors of many types
        return ImageFile(str(error) or type(error).__name__)
    if error := too_long(*stored):
        return ImageFile(error)
    return ImageFile(None, stored, orientation, digest, note or animation)


def _decoded_whole(content: bytes) -> tuple[tuple[int, int], int, str | None]:
    """Decode an image to its end, as far as damage shows.

    Returns:
        width and height in the file, EXIF's orientation, 1 to 8, and a note if it is
        an animation.
    """
    with open_image(content) as image:
        stored, note = image.size, None
        with in_turn(*stored):
            if image.format == "PNG":
                image.load()
                check_exif(image)
            orientation = image.getexif().get(ORIENTATION, 1)
            if image.format in JPEG_FORMATS:
                check_jpeg(image, content)
            else:
                image.load()  # Pillow opens files that are cut short, too
                check_range(content, image)
                if (frames := number_of_frames(image)) > 1:
                    note = f"it is an animation, and only the first of its {frames} "
                    note += "images is read"
            if has_unusual_compression(content):
                readable = decode(content, cv2.IMREAD_COLOR) is not None
            else:
                readable = opencv_reads(str(image.format))
        if not readable:
            raise InputError("OpenCV cannot read this format; save it as PNG")
        valid = isinstance(orientation, int) and 1 <= orientation <= 8
        return stored, orientation if valid else 1, note


def too_long(width: int, height: int) -> str | None:
    """Why resizing would leave nothing of an image's shorter side; None if it would
    leave something."""
    if max(width, height) > LONGEST * min(width, height):
        return (
            f"{width} x {height} pixels: one side is more than {LONGEST} times the "
            "other, and resizing leaves nothing of it"
        )
    return None


def check_jpeg(image: PIL.Image.Image, content: bytes) -> None:
    """Check that an opened JPEG is whole.

    Pillow reads all of the file, but decodes it at its smallest scale. OpenCV would
    fill a missing end with grey pixels.

    Args:
        content: the bytes of the file.

    Raises:
        OSError: the file is cut short or damaged, or its end is zeros, which a
            download or a copy that broke off leaves. Decoders read zeros as pixels.
    """
    image.draft("L", (1, 1))
    end_of_image = b"\xff\xd9"
    if not any(content[-16:]) and not content.rstrip(b"\0").endswith(end_of_image):
        raise OSError("its end is missing: the file has zeros there")
    image.load()
