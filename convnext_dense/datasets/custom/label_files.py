"""Reads the values of a label map's pixels exactly as its file stores them.

Training, checks, drawings and repairs all read label maps here, so that they see the
same values.
"""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from convnext_dense.errors import InputError
from convnext_dense.utils.files import read_bytes
from convnext_dense.utils.image_content import (
    JPEG_FORMATS,
    UnknownFormatError,
    check_image,
    check_size,
    decode,
    in_turn,
    open_image,
)
from convnext_dense.utils.image_structure import PNG, check_tags

# Formats that keep every value.
SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", ".npy")
# Formats that change values, at least with their usual settings.
LOSSY = (*JPEG_FORMATS, "WEBP", "JPEG2000", "AVIF")
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp", ".jp2", ".avif")

MISSING = -2  # what negative, not finite and missing values are read as
_NPY = b"\x93NUMPY"  # the first bytes of such a file
_TIFF = (b"II", b"MM")
_LARGEST = 2**31 - 1  # larger values are read as this one
# Pillow's modes with one number for each pixel.
_GREY = ("P", "L", "1", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")

# Tags of a TIFF file. GDAL writes the value of pixels without data as text
# (https://gdal.org/drivers/raster/gtiff.html#nodata-value).
_BITS, _BANDS, _SUBFILE, _SAMPLE_FORMAT, _GDAL_NODATA = 258, 277, 254, 339, 42113
_SIGNED, _FLOAT = 2, 3  # sample formats
_REDUCED_OR_MASK = 1 | 4  # subfile types: a smaller copy, a transparency mask
_MOST_PAGES = 64


class NotALabelMap(ValueError):
    """The reason why a file cannot be read as a label map."""


def read_values(file: str | Path) -> np.ndarray:
    """Read the number of every pixel, (H, W) int32.

    A palette's indices count, not its colours. A GIF whose colours are grey has the
    grey values. Negative values, NaN, infinity and GDAL's no-data value are
    ``MISSING``.

    Raises:
        NotALabelMap: the file has colours, several pages or bands, fractions, or a
            format that changes values.
        InputError: it is not a regular file, not an image, or too large.
    """
    content = read_bytes(file)
    if content.startswith(_NPY):
        return _whole_numbers(_npy_array(content))
    if (wide := _float64_tiff(content)) is not None:
        return wide
    with _open(content) as image, in_turn(*image.size):
        image.load()
        if image.mode not in _GREY:
            rgb = np.asarray(image.convert("RGB"), np.int32)
            if (rgb[..., :1] != rgb).any():
                raise NotALabelMap(
                    "its pixels are colours; name the class of each with --color-map"
                )
            return rgb[..., 0].copy()
        values = np.asarray(image)
        if image.format == "GIF" and image.mode == "P":
            values = _grey_of_palette(image, values)
        elif image.mode == "L":
            values = _as_stored(image, content, values)
        return _whole_numbers(values, _no_data(getattr(image, "tag_v2", {})))


def read_colors(file: str | Path) -> np.ndarray:
    """Read the colour of every pixel, (H, W, 3) RGB int32.

    Raises:
        NotALabelMap, InputError: as ``read_values``.
    """
    content = read_bytes(file)
    if content.startswith(_NPY):
        values = _whole_numbers(_npy_array(content)).clip(-1, 256)
        return np.repeat(values[..., None], 3, -1)
    with _open(content) as image, in_turn(*image.size):
        return np.asarray(image.convert("RGB"), np.int32)


def _open(content: bytes) -> PIL.Image.Image:
    """Open an image that can hold a label map, without decoding it."""
    try:
        image = open_image(content)
    except UnknownFormatError as error:
        if content.startswith(_TIFF):
            raise NotALabelMap(
                "it is a TIFF that cannot be read, such as one with several bands or "
                "64-bit integers: save one band as PNG"
            ) from error
        name = error.format_name
        raise NotALabelMap(
            f"it is {name}"
            if name
            else "not an image, or not in a format that is read: save it as PNG"
        ) from error
    name = image.format
    if name == "TIFF" and "jpeg" in str(image.info.get("compression")):
        name = "JPEG"
    if name in LOSSY:
        raise NotALabelMap(
            f"it is a {name}, which changes values: write it again as PNG, from its "
            "source"
        )
    _check_pages(image)
    return image


def _check_pages(image: PIL.Image.Image) -> None:
    """Refuse several pages or frames; overviews and masks of GeoTIFFs are no pages."""
    if image.format == "GIF" and getattr(image, "is_animated", False):
        raise NotALabelMap("it is an animated GIF: save one of its images as PNG")
    if image.format != "TIFF":
        return
    pages = 1
    try:
        for page in range(1, _MOST_PAGES):
            image.seek(page)
            subfile = getattr(image, "tag_v2", {}).get(_SUBFILE, 0)
            pages += not (isinstance(subfile, int) and subfile & _REDUCED_OR_MASK)
    except EOFError:
        pass
    image.seek(0)
    if pages > 1:
        raise NotALabelMap(
            f"it has {pages} pages: save the page with the labels as PNG"
        )


def _grey_of_palette(image: PIL.Image.Image, indices: np.ndarray) -> np.ndarray:
    """The grey values of a palette without colours, else its indices."""
    palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    used = np.unique(indices)
    if used.max(initial=0) < len(palette):
        colors = palette[used]
        if (colors == colors[:, :1]).all():
            return palette[indices, 0]
    return indices


def _as_stored(
    image: PIL.Image.Image, content: bytes, values: np.ndarray
) -> np.ndarray:
    """Undo what Pillow does to grey values of other than 8 unsigned bits."""
    bits, signed = 8, False
    if content.startswith(PNG):
        bits = content[24]  # of the header chunk, which is always the first
    elif image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        bits = _first(tags.get(_BITS, 8))
        signed = _first(tags.get(_SAMPLE_FORMAT)) == _SIGNED
    if bits in (2, 4):  # Pillow enlarges them to 0 to 255
        return values // (255 // (2**bits - 1))
    return values.view(np.int8) if signed else values


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value


def _float64_tiff(content: bytes) -> np.ndarray | None:
    """The numbers of a TIFF of 64-bit floats, which Pillow does not read.

    None for another file.
    """
    if not content.startswith(_TIFF):
        return None
    big = content[2:4] in (b"+\0", b"\0+")
    try:
        check_tags(content)
        tags = ImageFileDirectory_v2(content[: 16 if big else 8])
        stream = io.BytesIO(content)
        stream.seek(tags.next)
        tags.load(stream)
        types = _first(tags.get(_BITS)), _first(tags.get(_SAMPLE_FORMAT))
        if types != (64, _FLOAT) or tags.get(_BANDS, 1) != 1 or tags.next:
            return None
    except InputError:
        raise
    except Exception:  # Pillow's reader raises errors of many types
        return None  # opening the image says what is wrong
    with in_turn(*check_image(content)):
        values = decode(content, cv2.IMREAD_UNCHANGED)
        if values is None or values.dtype != np.float64 or values.ndim != 2:
            return None
        return _whole_numbers(values, _no_data(tags))


def _no_data(tags: Any) -> float | None:
    """GDAL's value of pixels without data; None if the file does not name one.

    Args:
        tags: those of a TIFF, or an empty dict.
    """
    text = tags.get(_GDAL_NODATA)
    try:
        return float(str(text).strip("\0 ")) if text is not None else None
    except ValueError:
        return None


def _whole_numbers(values: np.ndarray, no_data: float | None = None) -> np.ndarray:
    """Values of any type as int32; what is not a value of a class is ``MISSING``."""
    missing = np.zeros(values.shape, bool)
    if no_data is not None:
        # A large no-data value is rounded to the type of the values.
        same = np.float32(no_data) if values.dtype == np.float32 else no_data
        missing = values == same
    if values.dtype.kind == "f":
        missing |= ~np.isfinite(values)
        values = np.where(missing, 0, values)
        fractions = values != np.rint(values)
        if fractions.any():
            raise NotALabelMap(
                "it has values that are not whole numbers, such as "
                f"{float(values[fractions][0]):g}: write class indices, and resize "
                "label maps with nearest-neighbour interpolation"
            )
    if values.dtype.kind in "if":
        missing |= values < 0
    if values.dtype.itemsize >= 4:
        values = np.minimum(values, _LARGEST)
    labels = np.where(missing, 0, values).astype(np.int32)
    labels[missing] = MISSING
    return labels


def _npy_array(content: bytes) -> np.ndarray:
    """The numbers (H, W) of a NumPy file, read without unpickling anything.

    Raises:
        NotALabelMap: it is damaged, or has other than numbers in two dimensions.
        InputError: it is too large.
    """
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(stream)
        else:
            header = np.lib.format.read_array_header_2_0(stream)
        shape, by_column, dtype = header
    except Exception as error:  # NumPy's reader raises errors of many types
        raise NotALabelMap(f"it is a damaged .npy file: {error}") from error
    if dtype.kind not in "biuf":
        raise NotALabelMap(
            f"its values are of the type {dtype}, not whole numbers: save class "
            "indices with np.save(FILE, labels.astype('uint8'))"
        )
    sides = shape
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        sides = shape[1:] if shape[0] == 1 else shape[:2]
    if len(sides) != 2 or min(sides) < 1:
        raise NotALabelMap(
            f"its shape is {shape}: save one class index for each pixel, (height, "
            "width)"
        )
    height, width = sides
    check_size(width, height, dtype.itemsize + 8)
    if len(content) - stream.tell() != height * width * dtype.itemsize:
        raise NotALabelMap("it is a damaged .npy file: its size does not fit its shape")
    values = np.frombuffer(content, dtype, height * width, stream.tell())
    return values.reshape(sides, order="F" if by_column else "C")
