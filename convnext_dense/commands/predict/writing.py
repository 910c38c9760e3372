"""Writes pictures, and makes the folders for results."""

from pathlib import Path

import numpy as np

from convnext_dense.errors import InputError
from convnext_dense.utils.images import write_image


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) RGB or (H, W) in the format of the path's suffix."""
    if image.ndim == 3:
        image = np.ascontiguousarray(image[..., ::-1])
    make_folder(path.parent)
    write_image(path, image)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; an InputError if that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder {path} cannot be created: {error.strerror}"
        ) from error
