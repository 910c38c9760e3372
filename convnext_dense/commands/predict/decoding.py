"""Read image files and videos, and refuse those that are damaged or cut short."""

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from convnext_dense.errors import InputError
from convnext_dense.utils.images import JPEG_FORMATS, check_jpeg

FRAMES_PER_SECOND = 25.0  # for videos whose file does not state it
# The share of the stated frames that may be missing: some files only estimate them.
MISSING = 0.1


def check_image(path: Path) -> None:
    """Check that an image file can be opened and that a JPEG is complete.

    OpenCV, which decodes the images later, fills the missing end of a JPEG with grey.
    It refuses other damaged images itself.

    Raises:
        InputError: the file cannot be opened, is empty, or is an incomplete JPEG. The
            message does not name the file.
    """
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError("it is empty")
    except OSError as error:
        raise InputError(f"it cannot be opened: {error.strerror}") from error
    try:
        with Image.open(path) as image:
            if image.format in JPEG_FORMATS:
                check_jpeg(image, path.read_bytes())
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return  # OpenCV may know the format
    except OSError as error:
        raise InputError(f"it is damaged: {error}") from error


class Video:
    """The frames of a video file.

    Attributes:
        rate: frames per second.
        count: the number of frames that the file states; None if it states none.

    Raises:
        InputError: the file cannot be decoded as a video.
    """

    def __init__(self, path: Path):
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise InputError("it cannot be decoded as a video")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < math.inf else FRAMES_PER_SECOND
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if 0 < count < math.inf else None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, (H, W, 3) uint8 in BGR, all of one size.

        Raises:
            InputError: the video ends too early, or the size of its frames changes.
        """
        number, shape = 0, None
        while True:
            success, frame = self._capture.read()
            if not success:
                break
            number, shape = number + 1, shape or frame.shape
            if frame.shape != shape:
                raise InputError(f"the size of its frames changes at frame {number}")
            yield frame
        if number < (1 - MISSING) * (self.count or 1):
            raise InputError(
                f"it is cut short: {number} of {self.count or 1} frames can be read"
            )
