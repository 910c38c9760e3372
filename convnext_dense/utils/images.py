"""Reads image files: whether they are whole, how large they are, their digests."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import PIL.Image
from rich.progress import track

from convnext_dense.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".ppm")
# The EXIF tag that says how the camera was held: 1 is upright, 5 to 8 swap the sides.
ORIENTATION = 0x0112
JPEG_FORMATS = ("JPEG", "MPO")  # Pillow's names

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
    """

    error: str | None = None
    stored: tuple[int, int] = (0, 0)
    orientation: int = 1
    digest: bytes = b""

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
        InputError: OpenCV cannot decode it.
    """
    # Not imread: on Windows it cannot open every name.
    bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise InputError(f"{path} cannot be decoded as an image")
    return bgr[..., ::-1]


def _read_image(path: Path) -> ImageFile:
    try:
        content = path.read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        with PIL.Image.open(path) as image:
            orientation = image.getexif().get(ORIENTATION, 1)
            stored = image.size
            if image.format in JPEG_FORMATS:
                check_jpeg(image, content)
            else:
                image.load()  # Pillow opens files that are cut short, too
    except Exception as error:  # Pillow's readers raise errors of many types
        return ImageFile(_reason(path, error))
    if not cv2.haveImageReader(str(path)):
        return ImageFile("OpenCV cannot read this format; save it as JPEG or PNG")
    if error := too_long(*stored):
        return ImageFile(error)
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    return ImageFile(None, stored, orientation if valid else 1, digest)


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


def _reason(path: Path, error: Exception) -> str:
    """Why an image could not be read, in few words."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image" if path.stat().st_size else "empty file"
    reason = error.strerror if isinstance(error, OSError) else None
    return str(reason or error or type(error).__name__)
