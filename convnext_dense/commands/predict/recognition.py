"""Recognises images, animations and videos by their content, not by their names."""

import contextlib
import enum
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from convnext_dense.errors import InputError
from convnext_dense.utils import files
from convnext_dense.utils.foreign_formats import describe, is_text
from convnext_dense.utils.image_content import number_of_frames, open_image
from convnext_dense.utils.image_structure import JPEG, PNG, is_animated

from .decoding import check_name, open_video

BEGINNING = 4096  # bytes of a file, which tell images and other formats

# The first bytes of images that OpenCV or Pillow reads. A TIFF of a camera is one.
_IMAGES = (
    *(JPEG, PNG, b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\x59\xa6\x6a\x95", b"#?R", b"P7\n"),
)
_PORTABLE = re.compile(rb"P[1-6Ff]\s")  # PBM, PGM, PPM, PFM

# Endings of files whose content was not recognised, and which are then reported as
# images or videos that cannot be read.
IMAGES = {
    *(".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe"),
    *(".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff"),
    *(".arw", ".cr2", ".cr3", ".dcm", ".exr", ".jxl", ".nef", ".orf", ".psd", ".raf"),
    *(".rw2", ".tga", ".webp"),
}
VIDEOS = {
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".h264", ".h265"),
    *(".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".mxf", ".ogv", ".rm", ".ts", ".vob", ".webm", ".wmv"),
}
_MANY_JPEGS = (".mjpeg", ".mjpg")  # a video without a container: one JPEG after another


class Media(enum.Enum):
    """What a file is for a prediction."""

    IMAGE = "image"
    ANIMATION = "animation"
    VIDEO = "video"


def recognize(path: Path) -> Media | None:
    """What a file is, by its content; None if it is neither an image nor a video.

    A file that cannot be read, or whose content is damaged from the beginning, is what
    its ending says.
    """
    suffix = path.suffix.lower()
    by_ending = (
        Media.VIDEO if suffix in VIDEOS else Media.IMAGE if suffix in IMAGES else None
    )
    try:
        with files.open_regular(path) as file:
            content = file.read(BEGINNING)
            if _is_image(content) and suffix not in _MANY_JPEGS:
                # All of a GIF tells how many images it has; nothing else is read.
                if content.startswith(b"GIF8"):
                    content += file.read()
                return Media.ANIMATION if _has_frames(content) else Media.IMAGE
        check_name(path)
    except (InputError, OSError):
        return by_ending
    if not content or is_text(content) or describe(content):
        return by_ending
    with _opencv_silent():
        capture = open_video(path)
    if capture.isOpened():
        capture.release()
        return Media.VIDEO
    return by_ending


@contextlib.contextmanager
def _opencv_silent() -> Iterator[None]:
    """A context in which OpenCV does not warn of what it cannot open."""
    logging: Any = getattr(cv2.utils, "logging", cv2)  # of OpenCV 5, of OpenCV 4
    level = logging.getLogLevel()
    logging.setLogLevel(0)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _is_image(content: bytes) -> bool:
    """Whether a file begins as an image of a format that OpenCV or Pillow reads."""
    return (
        content.startswith(_IMAGES)
        or (content.startswith(b"BM") and not is_text(content))
        or bool(_PORTABLE.match(content))
        or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")
        or content[4:12] in (b"ftypavif", b"ftypavis")
    )


def _has_frames(content: bytes) -> bool:
    """Whether an image is an animation, by its first bytes, or by all of a GIF."""
    if content.startswith(b"GIF8"):
        try:
            with open_image(content) as image:
                return number_of_frames(image) > 1
        except Exception:  # damaged; Pillow's readers raise errors of many types
            return False
    if content.startswith(PNG):
        return is_animated(content)
    if content[12:16] == b"VP8X":  # the extended format of WebP
        return bool(content[20] & 2)
    return content[8:12] == b"avis"
