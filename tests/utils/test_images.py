"""Image files that take too much time or memory, or crash a decoder."""

import io
import os
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
from convnext_dense.utils.images import list_images, read_images, read_rgb, write_image

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
    "EPS, which Pillow gives to Ghostscript": (EPS, UNKNOWN),
    "PSD": (b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x10\0\0\0\x10\0\x08\0\3", UNKNOWN),
    "WMF": (b"\xd7\xcd\xc6\x9a" + bytes(100), UNKNOWN),
    "FITS": (b"SIMPLE  =                    T".ljust(2880), UNKNOWN),
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


def test_tags_behind_the_pixels(tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes(png(64, 48, pixels=ROWS, after=[(b"eXIf", tiff_tags(20_000))]))
    (read,) = read_images([file], "").values()
    assert "its tags refer to" in str(read.error)


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
