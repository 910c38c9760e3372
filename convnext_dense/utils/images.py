"""Look into image files: can they be read, how large are they, are two the same?"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import PIL.Image
from rich.progress import track

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".ppm")
# EXIF's tag of how a camera was held; 1 is upright, 5 to 8 swap width and height.
ORIENTATION = 0x0112

# How many times as long as wide an image may be: resized to a side of 1333, as COCO's
# are, the other has 13 pixels then.
LONGEST = 100
SMALLEST = 32  # pixels of a side, below which a backbone's deepest map has none


class Look(NamedTuple):
    """What an image file is.

    Attributes:
        trouble: why it cannot be read; None if it can.
        stored: width and height in the file.
        orientation: EXIF's, 1 to 8.
        digest: the same for files with the same bytes.
    """

    trouble: str | None = None
    stored: tuple[int, int] = (0, 0)
    orientation: int = 1
    digest: bytes = b""

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as viewers and training see it, turned by EXIF."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


def list_images(folder: Path) -> list[str]:
    """Names of the image files in a folder and below it, sorted, with '/'."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def look(paths: Iterable[Path], what: str) -> dict[Path, Look]:
    """Read each file whole, as training will; a progress bar says ``what``."""
    paths = list(dict.fromkeys(paths))
    return dict(zip(paths, for_all(_look, paths, what), strict=True))


def for_all(work: Callable, items: Sequence, what: str) -> list:
    """``work`` on each of ``items``, on all cores, with a progress bar."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(work, items)
        shown = dict(total=len(items), transient=True, disable=not sys.stdout.isatty())
        return list(track(results, what, **shown))


def _look(path: Path) -> Look:
    try:
        content = path.read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        with PIL.Image.open(path) as image:
            orientation = image.getexif().get(ORIENTATION, 1)
            stored = image.size
            if image.format in ("JPEG", "MPO"):
                image.draft("L", (1, 1))  # reads all of it, makes few pixels
                if ends_in_zeros(content):
                    return Look("its end is missing: zeros are in its place")
            image.load()  # to its end: a file that is cut short opens well
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        return Look(_reason(path, error))
    if not cv2.haveImageReader(str(path)):
        return Look("not a format that OpenCV reads")
    if trouble := too_long(*stored):
        return Look(trouble)
    turned = isinstance(orientation, int) and 1 <= orientation <= 8
    return Look(None, stored, orientation if turned else 1, digest)


def too_long(width: int, height: int) -> str | None:
    """Why a resizing would leave nothing of an image; None if it would not."""
    if max(width, height) > LONGEST * min(width, height):
        return f"{width} x {height} pixels: no resizing keeps both sides"
    return None


def ends_in_zeros(jpeg: bytes) -> bool:
    """Whether the end of a JPEG is missing, with zeros in its place.

    A download or a copy that broke off leaves such files. To decoders zeros are pixels.
    """
    return not any(jpeg[-16:]) and not jpeg.rstrip(b"\0").endswith(b"\xff\xd9")


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image" if path.stat().st_size else "empty file"
    reason = error.strerror if isinstance(error, OSError) else None
    return str(reason or error or type(error).__name__)
