"""Checks that OpenCV reads the values of an image file as they are.

Training and prediction read images as mmcv does by default: with
``cv2.imdecode(..., cv2.IMREAD_COLOR)``, as colours of 8 bits. OpenCV 4.12 and 5.0 clip
floats, take the bytes of signed integers, read the first band of a TIFF that is not
marked as RGB, and read the first image of several. They say nothing of it. What is
said here of OpenCV was tried with both.
"""

import re

import cv2
import PIL.Image

from convnext_dense.errors import InputError

from .image_content import decode
from .image_structure import HEIGHT, PNG, WIDTH, tiff_pages

# Tags of TIFF 6.0, and of DNG.
_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 258, 259, 262
_SAMPLES, _EXTRA, _FORMAT, _DNG = 277, 338, 339, 50706
_SMALLER, _MASK = 1, 4  # bits of _SUBFILE: a preview or an overview; a mask
_GREY, _RGB = (0, 1), 2  # values of _PHOTOMETRIC
_LOG = (32844, 32845)  # the same: floats as logarithms, which OpenCV writes
_SENSOR = (32803, 34892)  # the same: a sensor's pixels
_MULTIPLIED = 2  # of _EXTRA: alpha, by which OpenCV multiplies the colours
_UNMARKED = 0  # of _EXTRA: neither alpha nor colour
_FORMATS = {2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex"}

_FLOATS = re.compile(rb"#\?R(GBE|ADIANCE)|P[Ff]\s")  # the headers of HDR and PFM

# Every build of OpenCV reads these: none, CCITT, LZW, JPEG, deflate, PackBits.
_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)

# 16-bit values below 2^12 are those of a camera of 12 bits or less.
DARKEST = 4096
_EIGHT_BITS = (
    "save it as a PNG of 8 bits, with one range for all images (for a GeoTIFF: "
    "'gdal_translate -ot Byte -scale MIN MAX 0 255 IN.tif OUT.png')"
)
_RGB_BITS = (
    "save three of them as an RGB PNG of 8 bits (for a GeoTIFF: 'gdal_translate -b 1 "
    "-b 2 -b 3 -ot Byte -scale MIN MAX 0 255 IN.tif OUT.png')"
)


def check_values(content: bytes) -> str | None:
    """Check the header of an image: whether OpenCV reads its values as they are.

    Args:
        content: all bytes of the file.

    Returns:
        what OpenCV does not read of the image, for a note; None if it reads all.

    Raises:
        InputError: OpenCV would change the values, or read a preview of the image.
    """
    if _FLOATS.match(content):
        raise InputError(f"its pixels are floats: {_EIGHT_BITS}")
    pages = tiff_pages(content)
    first = next(pages, None)
    if first is None:
        return None
    _check_page(content, first)
    size = first.get(WIDTH), first.get(HEIGHT)
    number = 1 + sum(
        (page.get(WIDTH), page.get(HEIGHT)) == size
        and not page.get(_SUBFILE, [0])[0] & (_SMALLER | _MASK)
        for page in pages
    )
    if number > 1:
        return f"it has {number} pages, and only the first one is read"
    extra = first.get(_EXTRA, [])
    if first.get(_PHOTOMETRIC) == [_RGB] and extra:
        if extra[0] == _UNMARKED:
            return "it has 4 bands, and only the first three are read, as RGB"
        if extra[0] == _MULTIPLIED:
            return "OpenCV multiplies its colours by its alpha band"
    return None


def _check_page(content: bytes, page: dict[int, list[int]]) -> None:
    """Check the tags of the first page; an InputError if OpenCV changes its values."""
    (photometric,) = page.get(_PHOTOMETRIC, [1])[:1]
    if (
        _DNG in page
        or page.get(_SUBFILE, [0])[0] & _SMALLER
        or photometric in _SENSOR
        or content[8:10] == b"CR"
    ):
        raise InputError(
            "it is a camera's raw file (DNG, NEF, CR2, ...): develop it into a JPEG "
            "or PNG with a raw converter"
        )
    bits, samples = page.get(_BITS, [1])[0], page.get(_SAMPLES, [1])[0]
    if photometric in _LOG:
        raise InputError(f"its pixels are floats: {_EIGHT_BITS}")
    name = _FORMATS.get(page.get(_FORMAT, [1])[0])
    if name or bits > 16:
        raise InputError(
            f"its pixels are {name or 'integers'} of {bits} bits: {_EIGHT_BITS}"
        )
    is_grey_and_alpha = samples == 2 and page.get(_EXTRA, [_UNMARKED])[0] != _UNMARKED
    if photometric in _GREY and samples > 1 and not is_grey_and_alpha:
        remedy = _RGB_BITS if samples > 2 else "save the one to use as a grey PNG"
        raise InputError(
            f"its {samples} bands are not marked as RGB, and OpenCV would read the "
            f"first one only: {remedy}"
        )
    if samples > 4:
        raise InputError(f"it has {samples} bands, more than OpenCV reads: {_RGB_BITS}")


def has_unusual_compression(content: bytes) -> bool:
    """Whether a file is a TIFF with a compression that some builds do not read."""
    page = next(tiff_pages(content), {})
    return page.get(_COMPRESSION, [1])[0] not in _COMPRESSIONS


def has_16_bits(content: bytes, image: PIL.Image.Image) -> bool:
    """Whether the pixels of an opened image are integers of 16 bits."""
    if image.mode.startswith("I"):
        return True
    if content.startswith(PNG):
        return content[24:25] == b"\x10"
    return next(tiff_pages(content), {}).get(_BITS, [8])[0] == 16


def check_range(content: bytes, image: PIL.Image.Image) -> None:
    """Check that a loaded image of 16 bits is not black when divided by 256.

    Raises:
        InputError: its values are not 0, and none is ``DARKEST`` or more.
    """
    if not has_16_bits(content, image):
        return
    extrema = image.getextrema()
    pairs = extrema if isinstance(extrema[0], tuple) else (extrema,)
    largest = max(int(most) for _, most in pairs[:3])
    if not image.mode.startswith("I"):  # then Pillow keeps the upper 8 bits
        largest <<= 8
        if (
            not largest
            and (pixels := decode(content, cv2.IMREAD_UNCHANGED)) is not None
        ):
            largest = int(pixels.max())
    if 0 < largest < DARKEST:
        raise InputError(
            f"its values of 16 bits are all below {DARKEST}, and become nearly black "
            f"when they are divided by 256 for training: {_EIGHT_BITS}"
        )
