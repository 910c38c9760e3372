"""Names the format of a file that is not an image, or not one that OpenCV reads."""

import re
from collections.abc import Callable

TEXT = 512  # bytes of a file, by which text is told from other content

_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_PNG = "save it as PNG"
_RAW = "a camera's raw file", "develop it into a JPEG or PNG with a raw converter"
_DOWNLOAD = "download the image itself"


def _starts(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda content: content.startswith(starts)


# A test of the content, what it is, and what to do. The first that fits counts.
_FORMATS: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (
        lambda content: content[4:8] == b"ftyp" and content[8:12] in _HEIC,
        "a HEIC image",
        "save it as JPEG or PNG, for instance with 'heif-convert IN.heic OUT.jpg'",
    ),
    (
        lambda content: content[4:12] in (b"ftypavif", b"ftypavis"),
        "an AVIF image",
        _PNG,
    ),
    (lambda content: content[4:12] == b"ftypcrx ", *_RAW),
    (_starts(b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"MMOR", b"FOVb"), *_RAW),
    (_starts(b"8BPS"), "a Photoshop file (PSD)", _PNG),
    (_starts(b"\x76\x2f\x31\x01"), "an OpenEXR image of floats", _PNG),
    (_starts(b"\xff\x0a", b"\0\0\0\x0cJXL "), "a JPEG XL image", _PNG),
    (_starts(b"DDS "), "a DDS texture", _PNG),
    (_starts(b"\0\0\1\0"), "an icon (ICO)", _PNG),
    (_starts(b"\x01\xda"), "an SGI image", _PNG),
    (_starts(b"qoif"), "a QOI image", _PNG),
    (_starts(b"SIMPLE  ="), "a FITS file", _PNG),
    (_starts(b"%!PS", b"\xc5\xd0\xd3\xc6"), "a PostScript file (EPS)", _PNG),
    (
        lambda content: content[128:132] == b"DICM",
        "a DICOM file",
        "save its image as PNG, with one window for all images",
    ),
    (_starts(b"%PDF"), "a PDF", "save its pages as PNG, with 'pdftoppm -png IN OUT'"),
    (
        lambda content: b"<svg" in content[:4096].lower() and is_text(content),
        "an SVG drawing",
        "save it as PNG, for instance with 'rsvg-convert IN.svg -o OUT.png'",
    ),
    (
        lambda content: bool(
            re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html)", content[:99], re.I)
        ),
        "a web page (HTML)",
        _DOWNLOAD,
    ),
    (
        _starts(b"version https://git-lfs"),
        "a pointer of Git LFS",
        "run 'git lfs pull' in its repository",
    ),
    (_starts(b"\x93NUMPY"), "a NumPy array", "save it as a PNG of 8 bits"),
    (_starts(b"\x89HDF"), "an HDF5 file", "save its images as PNG"),
    (_starts(b"PK\3\4"), "a zip archive", "unpack it, and name its images"),
    (_starts(b"\x1f\x8b"), "a gzip archive", "unpack it, and name its images"),
    (_starts(b"Rar!", b"7z\xbc\xaf"), "an archive", "unpack it, and name its images"),
)


def describe(content: bytes) -> str | None:
    """What a file is, and what to do with it; None if this is not known.

    Args:
        content: its bytes, or the first 4096 of them.

    >>> describe(b"8BPS")
    'a Photoshop file (PSD): save it as PNG'
    """
    for test, what, remedy in _FORMATS:
        if test(content):
            return f"{what}: {remedy}"
    return None


def is_text(content: bytes) -> bool:
    """Whether the beginning of a file is text, in UTF-8.

    >>> is_text(b"<annotation>"), is_text(b"GIF89a\\0")
    (True, False)
    """
    start = content[:TEXT]
    if b"\0" in start:
        return False
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return (
            error.start > len(start) - 4 and len(content) > TEXT
        )  # cut in a character
    return True
