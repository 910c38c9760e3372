"""Writes drawn frames into a video."""

import contextlib
from pathlib import Path

import cv2
import numpy as np

from convnext_dense.errors import InputError
from convnext_dense.utils import files

from .decoding import check_name, open_video
from .writing import make_folder


class VideoFile:
    """Writes an mp4 frame by frame. It appears when closed, unless it has no frame.

    Args:
        path: the file.
        rate: frames per second.

    Raises:
        InputError: the path is not UTF-8.
    """

    def __init__(self, path: Path, rate: float):
        try:
            check_name(path)
        except InputError as error:
            raise InputError(f"{path} could not be written: {error}") from error
        self._path = path
        self._rate = rate
        self._open = contextlib.ExitStack()
        self._writer: cv2.VideoWriter | None = None
        self._count = 0

    def add(self, image: np.ndarray) -> None:
        """Write a frame (H, W, 3) RGB uint8."""
        if self._writer is None:
            height, width = image.shape[:2]
            self._writer = self._start((width, height))
        self._writer.write(np.ascontiguousarray(image[..., ::-1]))
        self._count += 1

    def _start(self, size: tuple[int, int]) -> cv2.VideoWriter:
        """Open the file for frames of ``size`` (width, height)."""
        make_folder(self._path.parent)
        partial = self._open.enter_context(files.whole(self._path))
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        # Other backends would write images, if the name is like 'clip%02d.mp4'.
        backend = cv2.CAP_FFMPEG
        writer = cv2.VideoWriter(str(partial), backend, codec, self._rate, size)
        self._open.callback(self._finish, writer, partial)
        return writer

    def _finish(self, writer: cv2.VideoWriter, partial: Path) -> None:
        """Close the video and check that it has all frames."""
        writer.release()
        # The writer reports neither a full disk nor a missing codec.
        written = open_video(partial).get(cv2.CAP_PROP_FRAME_COUNT)
        if written != self._count:
            raise InputError(
                f"{self._path} could not be written: {max(0, int(written))} of "
                f"{self._count} frames are in it. Check the free disk space and "
                "OpenCV's support of mp4 (codec mp4v)"
            )

    def close(self) -> None:
        """Complete the file."""
        self._open.close()
