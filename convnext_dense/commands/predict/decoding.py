"""Read image files and videos, and refuse those that are damaged or cut short."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import DRAWING
from convnext_dense.utils import files
from convnext_dense.utils.foreign_formats import is_text
from convnext_dense.utils.image_content import (
    UnknownFormatError,
    check_image,
    check_size,
    decode,
    open_image,
)
from convnext_dense.utils.image_structure import JPEG
from convnext_dense.utils.image_values import (
    check_range,
    check_values,
    has_16_bits,
    has_unusual_compression,
)
from convnext_dense.utils.images import check_jpeg, unnamed
from convnext_dense.utils.memory import at_most

FRAMES_PER_SECOND = 25.0  # for videos whose file does not state it
# The share of the stated frames that may be missing: some files only estimate them.
MISSING = 0.1
# Videos of browsers and screens have frames at irregular times, and FFmpeg gives the
# finest step between two of them as their rate, such as 1000 a second.
FASTEST = 120  # frames per second that are believed
TIMED = 100  # frames whose times are read instead
# Bytes of memory for each pixel of an image that is predicted and drawn in tiles.
TILED = 30
LONGEST_SIDE = 65_500  # pixels of a JPEG; the drawing is one

# A playlist, a list of files or the description of a network stream may have any
# suffix, and FFmpeg opens what it names. With these options FFmpeg opens this file
# only, as one of these containers.
_OPTIONS = (
    "protocol_whitelist;file|"
    "format_whitelist;mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,"
    "flv,asf,ogg,dv,h264,hevc,ivf,m4v,mjpeg,mxf,nut,rm,swf,vc1,wtv,yuv4mpegpipe"
)
_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"  # by which OpenCV takes FFmpeg's options
# A header of some bytes can state 10^9 frames, for which FFmpeg makes a list. An hour
# at 30 frames a second takes 3 MB; the rest is for the decoder's threads.
OPENING = 4 * 1024**3  # bytes


def check_file(
    path: Path, as_colors: bool = True, pixel_bytes: int = DRAWING
) -> str | None:
    """Check that an image can be opened, is not too large, and if a JPEG, is complete.

    OpenCV, which decodes the images later, fills the missing end of a JPEG with grey.
    It refuses other damaged images itself.

    Args:
        as_colors: whether OpenCV reads it as colours of 8 bits. Another loader may
            read floats or more bands.
        pixel_bytes: the memory that predicting and drawing take for each pixel.

    Returns:
        what of the image is not read, or read as nearly black; None if all is well.

    Raises:
        InputError: it is not a regular file or cannot be opened, it is empty, not an
            image or too large, or an incomplete JPEG, or OpenCV would change its
            values. The message does not name the file.
    """
    with unnamed(path):
        content = files.read_bytes(path)
    if not content:
        raise InputError("it is empty")
    try:
        width, height = check_image(content)
        check_prediction(width, height, pixel_bytes)
        note = check_values(content) if as_colors else None
        if content.startswith(JPEG):
            with open_image(content) as image:
                check_jpeg(image, content)
        unusual = as_colors and has_unusual_compression(content)
        if unusual and decode(content, cv2.IMREAD_COLOR) is None:
            raise InputError("OpenCV cannot read its compression: save it as PNG")
        return note or (_range_note(content) if as_colors else None)
    except UnknownFormatError as error:
        raise InputError(_not_an_image(path, content, error)) from error
    except OSError as error:
        raise InputError(f"it is damaged: {error}") from error


def _not_an_image(path: Path, content: bytes, error: UnknownFormatError) -> str:
    """What a file is that is not an image, and what to name instead."""
    if path.suffix.lower() in (".pth", ".pt", ".ckpt", ".safetensors"):
        return "it is not an image: the order is [CONFIG] CHECKPOINT INPUT..."
    if error.format_name:
        return f"it is {error.format_name}"
    if is_text(content):
        return (
            "it is text, not an image. If it lists images, one in a line: "
            "xargs -d '\\n' convnext-dense predict CHECKPOINT --out DIR < LIST"
        )
    return "it cannot be decoded as an image"


def _range_note(content: bytes) -> str | None:
    """Why an image of 16 bits becomes nearly black; None for another."""
    try:
        with open_image(content) as image:
            if has_16_bits(content, image):
                image.load()
                check_range(content, image)
    except UnknownFormatError:
        return None
    except InputError as error:
        return str(error)
    except Exception:  # Pillow's readers raise errors of many types
        return None  # OpenCV reads it, or says what is wrong
    return None


def check_prediction(width: int, height: int, pixel_bytes: int = DRAWING) -> None:
    """Check that an image can be predicted and drawn; an InputError if not.

    Args:
        pixel_bytes: the memory that both take for each pixel.
    """
    try:
        check_size(width, height, pixel_bytes)
    except InputError as error:
        if pixel_bytes > TILED:
            check_size(width, height, TILED)
            raise InputError(f"{error}, or predict it with --tile 1024") from error
        raise
    if max(width, height) > LONGEST_SIDE:
        raise InputError(
            f"{width} x {height} pixels, and a JPEG has at most {LONGEST_SIDE:,} on "
            "each side: cut it into tiles"
        )


class Video:
    """The frames of a video file.

    Attributes:
        rate: frames per second.
        count: the number of frames that the file states; None if it states none.

    Raises:
        InputError: it is not a regular file, its name is not UTF-8, it cannot be
            decoded as a video, or its frames are too large.
    """

    def __init__(self, path: Path):
        with unnamed(path):
            files.require_regular(path)
        check_name(path)
        self._capture = open_video(path)
        if not self._capture.isOpened():
            raise InputError("it cannot be decoded as a video")
        width = self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)
        height = self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        check_prediction(int(width), int(height))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < math.inf else FRAMES_PER_SECOND
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if 0 < count < math.inf else None
        # OpenCV multiplies duration and rate, where the file does not state the count.
        self._seconds = (self.count or 0) / self.rate
        if self.rate > FASTEST:
            self.rate = _measured_rate(path) or self.rate
            self.count = max(1, round(self._seconds * self.rate)) if count else None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, (H, W, 3) uint8 in BGR, all of one size.

        Raises:
            InputError: the video ends too early, or the size of its frames changes.
        """
        number, shape, seconds = 0, None, 0.0
        while True:
            success, frame = self._capture.read()
            if not success:
                break
            seconds = max(seconds, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            number, shape = number + 1, shape or frame.shape
            if frame.shape != shape:
                raise InputError(f"the size of its frames changes at frame {number}")
            yield frame
        if not number:
            raise InputError("it is cut short: none of its frames can be read")
        # The count may be estimated from the duration, for a rate that changes.
        share = max(number / (self.count or 1), seconds / (self._seconds or math.inf))
        if share < 1 - MISSING:
            raise InputError(
                f"it is cut short: {number} of {self.count} frames can be read"
            )


def _measured_rate(path: Path) -> float | None:
    """Frames per second by the times of the first frames; None if these do not tell."""
    capture = open_video(path)
    times = list[float]()
    while len(times) < TIMED and capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    if len(times) < 2 or not 0 < times[-1] - times[0] < math.inf:
        return None
    return (len(times) - 1) / (times[-1] - times[0])


def check_name(path: Path) -> None:
    """Check that OpenCV can open or write a video of this name; it crashes at others.

    Raises:
        InputError: the path is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "its path is not UTF-8, and OpenCV cannot open it: rename the file, or the "
            "folder"
        ) from error


def open_video(path: Path) -> cv2.VideoCapture:
    """Open a local video with FFmpeg, and nothing that it names.

    Other backends of OpenCV take names such as 'clip%02d.mp4' for those of images.
    """
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = f"{before}|{_OPTIONS}" if before else _OPTIONS
    try:
        with at_most(OPENING):
            return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    finally:
        del os.environ[_VARIABLE]
        if before is not None:
            os.environ[_VARIABLE] = before
