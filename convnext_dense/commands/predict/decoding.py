"""Images and videos, whole: what is cut short or damaged says so."""

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from convnext_dense.errors import InputError
from convnext_dense.utils.images import JPEG_FORMATS, check_jpeg

FRAMES_PER_SECOND = 25.0  # of a video that does not say
MISSING = 0.1  # of the frames that a video says it has: some only estimate them


def check_image(path: Path) -> None:
    """See that an image file can be opened, and that no JPEG is cut short.

    OpenCV, which decodes the images, fills a JPEG's missing part with grey; it has
    no pixels of any other damaged image.

    Raises:
        InputError: it cannot be opened, is empty, or is a JPEG cut short.
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
        return  # OpenCV may know it
    except OSError as error:
        raise InputError(f"it is damaged: {error}") from error


class Video:
    """The frames of a video file.

    Attributes:
        rate: frames a second.
        count: of frames, as the file says; None if it does not.

    Raises:
        InputError: it cannot be decoded.
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
        """Arrays (H, W, 3) of uint8, BGR, all of one size.

        Raises:
            InputError: it ends too early, or its size changes.
        """
        number, shape = 0, None
        while True:
            there, frame = self._capture.read()
            if not there:
                break
            number, shape = number + 1, shape or frame.shape
            if frame.shape != shape:
                raise InputError(f"its frames have another size from frame {number} on")
            yield frame
        if number < (1 - MISSING) * (self.count or 1):
            raise InputError(f"it is cut short: {number} of {self.count or 1} frames")
