"""Reads the frames of an animated GIF, PNG, WebP or AVIF, as of a video."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from convnext_dense.errors import InputError
from convnext_dense.utils import files
from convnext_dense.utils.image_content import (
    UnknownFormatError,
    number_of_frames,
    open_image,
)
from convnext_dense.utils.images import unnamed

from .decoding import TIMED, check_prediction

FRAME = 100  # milliseconds of a frame whose file does not say it, as in browsers
SHORTEST = 10  # browsers show frames of less for FRAME milliseconds


class Animation:
    """The frames of an animation, with Pillow, which puts the frames together.

    Attributes:
        rate: frames per second, of the mean duration.
        count: the number of frames.

    Raises:
        InputError: it is not a regular file, or cannot be read as an animation.
    """

    def __init__(self, path: Path):
        with unnamed(path):
            content = files.read_bytes(path)
        try:
            self._image = open_image(content, animated=True)
            self.count = number_of_frames(self._image)
        except UnknownFormatError as error:
            raise InputError("it cannot be decoded as an animation") from error
        except InputError:
            raise
        except Exception as error:  # Pillow's readers raise errors of many types
            raise InputError(f"it is damaged: {error}") from error
        check_prediction(*self._image.size)
        self.rate = 1000 / self._duration()

    def _duration(self) -> float:
        """The mean duration of the first frames, in milliseconds."""
        durations = []
        for number in range(min(self.count, TIMED)):
            self._seek(number)
            duration = self._image.info.get("duration", 0)
            if not isinstance(duration, int | float) or not duration >= SHORTEST:
                duration = FRAME
            durations.append(float(duration))
        return sum(durations) / len(durations)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, (H, W, 3) uint8 in BGR.

        Raises:
            InputError: a frame is damaged.
        """
        for number in range(self.count):
            self._seek(number)
            yield np.ascontiguousarray(self._rgb[..., ::-1])

    def _seek(self, number: int) -> None:
        """Go to a frame, counted from 0."""
        try:
            self._image.seek(number)
            # Formats know the duration after the frame is decoded.
            self._rgb = np.asarray(self._image.convert("RGB"))
        except Exception as error:  # Pillow's readers raise errors of many types
            raise InputError(
                f"it is damaged: image {number + 1} of {self.count}: {error}"
            ) from error
