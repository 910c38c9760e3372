"""Image files that take too much time or memory, or crash a decoder."""

import io
import os
import re
import socket
import struct
import time
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest

from convnext_dense.errors import InputError
from convnext_dense.utils import image_content
from convnext_dense.utils.image_content import check_image, check_size, opencv_reads
from convnext_dense.utils.image_structure import tiff_pages
from convnext_dense.utils.image_values import check_values
from convnext_dense.utils.images import list_images, read_images, read_rgb, write_image

from ..helpers import image_kinds
from ..helpers.hostile_images import (
    jpeg,
    many_scans,
    png,
    tiff,
    tiff_tags,
    with_segments,
)


def saved(image_format, **options):
    file = io.BytesIO()
    PIL.Image.new("RGB", (64, 48), "red").save(file, image_format, **options)
    return file.getvalue()


def bmp(width, height):
    whole = saved("BMP")
    return whole[:18] + struct.pack("<ii", width, height) + whole[26:]


TEXT = zlib.compress(bytes(10**7))
ROWS = bytes(48 * (1 + 3 * 64))  # of a PNG of 64 x 48 pixels
SHARED = "its tags refer to .* bytes, and the file has"
SCANS = "more than 100 scans or segments"
UNKNOWN = "not an image"
HDR = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n"
PAM = b"P7\nWIDTH 30000\nHEIGHT 30000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n"
REFUSED = {
    "PNG of 60000 x 60000": (png(60000, 60000), "3,600,000,000 pixels"),
    "PNG just too large": (png(15000, 15000), "15000 x 15000 pixels|225,000,000"),
    "BMP of negative sizes": (bmp(-(2**31), -(2**31)), "pixels|not an image"),
    "TIFF of 70000 x 70000": (tiff(70000, 70000), "4,900,000,000 pixels"),
    "TIFF in the other order": (tiff(70000, 70000, ">"), "4,900,000,000 pixels"),
    "TIFF of one row": (tiff(10**9, 1), "1,000,000,000 pixels"),
    "GIF of 65535 x 65535": (
        saved("GIF")[:6] + b"\xff" * 4 + saved("GIF")[10:],
        "4,294,836,225 pixels",
    ),
    "PPM of 30000 x 30000": (b"P6\n30000 30000\n255\n", "900,000,000 pixels"),
    "HDR": (HDR, "30000 x 30000 pixels"),
    "PAM": (PAM, "30000 x 30000 pixels"),
    "PFM in colour": (b"PF\n30000 30000\n-1\n", "30000 x 30000 pixels"),
    "TIFF whose tags share their bytes": (tiff_tags(20_000), SHARED),
    "the same in the other order": (tiff_tags(20_000, order=">"), SHARED),
    "EXIF data whose tags do": (
        with_segments(b"Exif\0\0" + tiff_tags(3000, 29_000)),
        SHARED,
    ),
    "a table of images whose tags do": (
        with_segments(b"MPF\0" + tiff_tags(3000, 29_000), marker=0xE2),
        SHARED,
    ),
    "EXIF data of a PNG": (
        png(64, 48, (b"eXIf", tiff_tags(20_000)), pixels=ROWS),
        SHARED,
    ),
    "20000 segments of EXIF data": (
        with_segments(*[b"Exif\0\0" + bytes(100)] * 20_000),
        SCANS,
    ),
    "a JPEG of 5000 scans": (many_scans(5000), SCANS),
    "compressed text": (png(64, 48, (b"zTXt", b"a\0\0" + TEXT), pixels=ROWS), "large"),
    "a compressed profile": (
        png(64, 48, (b"iCCP", b"a\0\0" + TEXT), pixels=ROWS),
        "large",
    ),
    "EPS, which Pillow gives to Ghostscript": (EPS, "it is a PostScript file"),
    "PSD": (
        b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x10\0\0\0\x10\0\x08\0\3",
        "it is a Photoshop file",
    ),
    "WMF": (b"\xd7\xcd\xc6\x9a" + bytes(100), UNKNOWN),
    "FITS": (b"SIMPLE  =                    T".ljust(2880), "it is a FITS file"),
    "nothing": (b"", UNKNOWN),
}
GOOD = {
    **{name: saved(name) for name in ("BMP", "TIFF", "WEBP", "JPEG2000", "PPM", "GIF")},
    "PNG": png(64, 48, pixels=ROWS),
    "JPEG": jpeg(),
    "progressive": jpeg(progressive=True),
    "EXIF": saved("JPEG", exif=b"Exif\0\0" + tiff_tags(1, 100)),
    "grey of 16 bits": png(64, 48, pixels=bytes(48 * (1 + 2 * 64)), bits=16, colors=0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_decoding(name, tmp_path, monkeypatch):
    content, message = REFUSED[name]

    def decoded(*_):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(cv2, "imdecode", decoded)
    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", decoded)
    start = time.process_time()
    with pytest.raises(InputError, match=message):
        check_image(content)
    assert time.process_time() - start < 5  # a bound: each takes less than 0.2 s
    file = tmp_path / "x.jpg"
    file.write_bytes(content)
    (read,) = read_images([file], "").values()
    assert read.error
    assert "decoded" not in read.error
    with pytest.raises(InputError, match=r"x\.jpg: "):
        read_rgb(file)


@pytest.mark.parametrize("name", GOOD)
def test_good_images_are_read(name, tmp_path):
    content = GOOD[name]
    assert check_image(content) == (64, 48)
    file = tmp_path / "x"
    file.write_bytes(content)
    (read,) = read_images([file], "").values()
    assert (read.error, read.stored) == (None, (64, 48))
    assert read_rgb(file).shape == (48, 64, 3)


# Images that OpenCV reads with other values than are in the file, or not at all.
DARK = "its values of 16 bits are all below 4096, and become nearly black"
CHANGED = {
    "grey floats": (
        image_kinds.tiff(image_kinds.pixels(1, np.float32), 1),
        "its pixels are floats of 32 bits: save it as a PNG of 8 bits",
    ),
    "floats in colour": (
        image_kinds.tiff(image_kinds.pixels(3, np.float64, 1 / 255)),
        "its pixels are floats of 64 bits",
    ),
    "floats in the other order": (
        image_kinds.tiff(image_kinds.pixels(3, np.float32), order=">"),
        "its pixels are floats of 32 bits",
    ),
    "floats as OpenCV writes them": (
        cv2.imencode(".tiff", np.ones((48, 64, 3), np.float32))[1].tobytes(),
        "its pixels are floats",
    ),
    "HDR": (
        cv2.imencode(".hdr", np.ones((48, 64, 3), np.float32))[1].tobytes(),
        "its pixels are floats: save",
    ),
    "PFM": (
        cv2.imencode(".pfm", np.ones((48, 64, 3), np.float32))[1].tobytes(),
        "its pixels are floats: save",
    ),
    "signed integers": (
        image_kinds.tiff(image_kinds.pixels(3, np.int16)),
        "its pixels are signed integers of 16 bits",
    ),
    "signed bytes": (
        image_kinds.tiff(image_kinds.pixels(1, np.int8), 1),
        "its pixels are signed integers of 8 bits",
    ),
    "integers of 32 bits": (
        image_kinds.tiff(image_kinds.pixels(1, np.uint32), 1),
        "its pixels are integers of 32 bits",
    ),
    "RGB that is not marked so": (
        image_kinds.tiff(image_kinds.pixels(3, np.uint16, 257), 1),
        "its 3 bands are not marked as RGB, and OpenCV would read the first one only",
    ),
    "two polarisations": (
        image_kinds.tiff(image_kinds.pixels(2), 1),
        "its 2 bands are not .*: save the one to use as a grey PNG",
    ),
    "13 bands of Sentinel-2": (
        image_kinds.tiff(image_kinds.pixels(13, np.uint16, 257), 1),
        "its 13 bands are not marked as RGB",
    ),
    "RGB and two more bands": (
        image_kinds.tiff(image_kinds.pixels(5)),
        "it has 5 bands, more than OpenCV reads: save three of them",
    ),
    "DNG": (
        image_kinds.tiff(image_kinds.pixels(), more=[(50706, 1)]),
        "it is a camera's raw file",
    ),
    "NEF, whose first image is a preview": (
        image_kinds.tiff(image_kinds.pixels(), more=[(254, 1)]),
        "it is a camera's raw file",
    ),
    "a TIFF compressed with Zstandard": (
        image_kinds.saved(image_kinds.pixels(), "TIFF", compression="zstd"),
        "OpenCV cannot read this format; save it as PNG",
    ),
    "a PNG of 12 bits": (
        image_kinds.saved(image_kinds.pixels(1, np.uint16, 16)[..., 0], "PNG"),
        DARK,
    ),
    "a TIFF of 12 bits in colour": (
        image_kinds.tiff(image_kinds.pixels(3, np.uint16, 16)),
        DARK,
    ),
    "8 bits in a TIFF of 16 bits": (
        image_kinds.tiff(image_kinds.pixels(3, np.uint16)),
        DARK,
    ),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(100), "it is a HEIC image: save it as JPEG"),
    "CR3": (b"\0\0\0\x18ftypcrx " + bytes(100), "it is a camera's raw file"),
    "EXR": (b"\x76\x2f\x31\x01" + bytes(100), "it is an OpenEXR image of floats"),
    "JPEG XL": (b"\xff\x0a" + bytes(100), "it is a JPEG XL image"),
    "DICOM": (bytes(128) + b"DICM" + bytes(100), "it is a DICOM file: save its image"),
    "PDF": (b"%PDF-1.7\n", "it is a PDF: save its pages as PNG"),
    "SVG": (b'<?xml version="1.0"?>\n<svg width="9">', "it is an SVG drawing: save it"),
    "a web page": (b"\n<!DOCTYPE html>", "it is a web page .HTML.: download the image"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "it is a pointer of Git LFS: run 'git lfs pull'",
    ),
    "NumPy": (b"\x93NUMPY\1\0" + bytes(100), "it is a NumPy array: save it as a PNG"),
    "zip": (b"PK\3\4" + bytes(100), "it is a zip archive: unpack it"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_training_would_read_wrongly(name, tmp_path):
    content, message = CHANGED[name]
    file = tmp_path / "x.tif"
    file.write_bytes(content)
    (read,) = read_images([file], "").values()
    assert re.match(message, str(read.error)), read.error
    if message != DARK:
        with pytest.raises(InputError, match=rf"x\.tif:? ({message}|cannot be dec)"):
            read_rgb(file)


ALPHA = np.dstack([image_kinds.pixels(), np.full((48, 64), 128, np.uint8)])
READ = {
    "RGB": (image_kinds.tiff(image_kinds.pixels()), None),
    "BigTIFF": (image_kinds.saved(image_kinds.pixels(), "TIFF", big_tiff=True), None),
    "RGB in planes": (image_kinds.tiff(image_kinds.pixels(), planar=True), None),
    "16 bits": (image_kinds.tiff(image_kinds.pixels(3, np.uint16, 257)), None),
    "RGB and infrared": (
        image_kinds.tiff(image_kinds.pixels(4)),
        "it has 4 bands, and only the first three are read, as RGB",
    ),
    "RGB and infrared in planes": (
        image_kinds.tiff(image_kinds.pixels(4, np.uint16, 257), planar=True),
        "it has 4 bands, and only the first three are read, as RGB",
    ),
    "three pages": (
        image_kinds.tiff(image_kinds.pixels(), pages=3),
        "it has 3 pages, and only the first one is read",
    ),
    "GIF": (
        image_kinds.animation("GIF"),
        "it is an animation, and only the first of its 3 images is read",
    ),
    "WebP": (
        image_kinds.animation("WEBP"),
        "it is an animation, and only the first of its 3 images is read",
    ),
    "GIF of one image": (image_kinds.animation("GIF", 1), None),
}


@pytest.mark.parametrize("name", READ)
def test_what_training_reads(name, tmp_path):
    content, note = READ[name]
    file = tmp_path / "x.jpg"
    file.write_bytes(content)
    (read,) = read_images([file], "").values()
    assert (read.error, read.stored, read.note) == (None, (64, 48), note)
    rgb = read_rgb(file)
    assert rgb[0, 0].tolist() == [200, 100, 50]
    assert rgb[0, -1].tolist() == [20, 40, 220]


def test_alpha_of_a_tiff(tmp_path):
    """OpenCV multiplies the colours; an image of infrared is often marked as alpha."""
    file = tmp_path / "x.tif"
    file.write_bytes(image_kinds.tiff(ALPHA, extra=2))
    (read,) = read_images([file], "").values()
    assert read.note == "OpenCV multiplies its colours by its alpha band"
    assert read_rgb(file)[0, 0].tolist() == [100, 50, 25]


def test_pages_that_are_no_more_images():
    """Overviews and masks of a GeoTIFF, and loops and ends of damaged files."""
    whole = image_kinds.tiff(image_kinds.pixels(), pages=2)
    assert len(list(tiff_pages(whole))) == 2
    smaller = bytearray(whole)
    second = whole.rindex(struct.pack("<HHII", 256, 4, 1, 64))
    smaller[second + 8 : second + 12] = struct.pack("<I", 32)
    assert check_values(bytes(smaller)) is None
    first = whole.index(struct.pack("<HHII", 256, 4, 1, 64)) - 2
    loop = whole[: second - 2].replace(
        struct.pack("<I", second - 2), struct.pack("<I", first)
    )
    assert len(list(tiff_pages(loop))) == 1
    for end in range(0, len(whole), 97):
        assert len(list(tiff_pages(whole[:end]))) <= 2


def test_pages_that_overlap():
    """A thousand pages of 65535 tags each, in a megabyte."""
    content = bytearray(b"II*\0\x10\0\0\0") + bytes(10**6)
    for number in range(1100):
        start = 16 + 14 * number
        content[start : start + 2] = b"\xff\xff"
        place = start + 2 + 12 * 65535
        content[place : place + 4] = struct.pack("<I", start + 14)
    before = time.process_time()
    assert len(list(tiff_pages(bytes(content)))) == 1000
    assert time.process_time() - before < 5  # 0.3 s; a minute if all tags were read


def test_tags_behind_the_pixels(tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes(png(64, 48, pixels=ROWS, after=[(b"eXIf", tiff_tags(20_000))]))
    (read,) = read_images([file], "").values()
    assert "its tags refer to" in str(read.error)


def animated(damage=False):
    """A PNG of three frames; if damaged, with rows of an unknown filter."""
    frames = [PIL.Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames, default_image=True)
    content = file.getvalue()
    if not damage:
        return content
    at = content.index(b"fdAT")
    rows = b"\0\0\0\1" + zlib.compress((b"\x09" + bytes(192)) * 48)
    size = struct.unpack(">I", content[at - 4 : at])[0]
    crc = struct.pack(">I", zlib.crc32(b"fdAT" + rows))
    chunk = struct.pack(">I", len(rows)) + b"fdAT" + rows + crc
    return content[: at - 4] + chunk + content[at + size + 8 :]


@pytest.mark.parametrize("damage", [False, True])
def test_animated_png(tmp_path, damage):
    """OpenCV 4.12 and 5.0 crash the process at the damaged one."""
    file = tmp_path / "x.png"
    file.write_bytes(animated(damage))
    if image_content.ANIMATED_PNG_CRASHES:
        with pytest.raises(InputError, match="it is an animated PNG: save one"):
            read_rgb(file)
    elif not damage:
        assert read_rgb(file).shape == (48, 64, 3)


def test_floats_in_colour(tmp_path):
    """OpenCV reads this TIFF, and Pillow does not."""
    done, content = cv2.imencode(".tiff", np.ones((48, 64, 3), np.float32))
    assert done
    assert check_image(content.tobytes()) == (64, 48)


def test_formats_of_opencv():
    assert all(map(opencv_reads, ("JPEG", "MPO", "PNG", "BMP", "TIFF", "PPM", "SUN")))


def test_too_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(image_content, "free_memory", lambda: 10**9)
    check_size(5000, 5000)
    with pytest.raises(InputError, match=r"13000 x 13000 pixels need 1\.4 GB of mem"):
        check_size(13_000, 13_000)

    def fails(*_):
        raise cv2.error("out of memory")

    file = tmp_path / "x.jpg"
    file.write_bytes(jpeg())
    monkeypatch.setattr(cv2, "imdecode", fails)
    monkeypatch.setattr(cv2.error, "code", cv2.Error.StsNoMem, raising=False)
    with pytest.raises(InputError, match=r"x\.jpg: the memory is too small"):
        read_rgb(file)

    def lacks(*_):
        raise MemoryError

    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", lacks)
    (read,) = read_images([file], "").values()
    assert read.error == "the memory is too small for it: cut it into tiles"


def test_large_images_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(image_content, "LARGE", 100)
    load = PIL.ImageFile.ImageFile.load
    at_once, most = 0, 0

    def counted(self):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.01)
        at_once -= 1
        return load(self)

    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", counted)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    files = [tmp_path / f"{number}.png" for number in range(8)]
    for file in files:
        file.write_bytes(GOOD["PNG"])
    assert not any(file.error for file in read_images(files, "").values())
    assert most == 1


def test_what_is_no_regular_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    os.mkfifo("pipe.png")
    os.symlink("pipe.png", "link.png")
    os.symlink("/dev/zero", "zero.png")
    os.symlink("loop.png", "loop.png")
    os.symlink("nowhere", "broken.png")
    os.mkdir("folder.png")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind("socket.png")
    reasons = {
        "pipe.png": "it is a pipe (FIFO): copy its content to a file, and name that",
        "link.png": "it is a pipe (FIFO): copy its content to a file, and name that",
        "zero.png": "it is a device: copy its content to a file, and name that",
        "loop.png": "it cannot be read: Too many levels of symbolic links",
        "broken.png": "it cannot be read: No such file or directory",
        "folder.png": "it is a folder: name a file",
        "socket.png": "it is a socket: copy its content to a file, and name that",
    }
    try:
        read = read_images([tmp_path / name for name in reasons], "")
    finally:
        bound.close()
    assert {file.name: image.error for file, image in read.items()} == reasons
    for name in reasons:
        with pytest.raises(InputError):
            read_rgb(tmp_path / name)


def test_links_to_the_own_folder_are_not_followed(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "one").symlink_to(".")
    (tmp_path / "two").symlink_to(".")
    assert list_images(tmp_path) == ["a.png"]


@pytest.mark.parametrize("name", [b"\xff.png", b"\n.png", b"\xe2\x80\xae.png"])
def test_names_that_are_not_text(tmp_path, name):
    """OpenCV crashes the process at the first one."""
    file = tmp_path / os.fsdecode(name)
    try:
        write_image(file, np.zeros((48, 64, 3), np.uint8))
    except InputError:  # not every file system has such names
        pytest.skip("the file system refuses this name")
    assert list_images(tmp_path) == [os.fsdecode(name)]
    (read,) = read_images([file], "").values()
    assert read.stored == (64, 48)
    assert read_rgb(file).shape == (48, 64, 3)
    file.write_bytes(b"GIF89a")
    (read,) = read_images([file], "").values()
    assert read.error
    with pytest.raises(InputError) as error:
        read_rgb(file)
    assert str(error.value).encode().isascii()
