"""Image and video files that take more time or memory than their size lets expect."""

import io
import struct
import zlib

import cv2
import numpy as np
import PIL.Image


def png(width, height, *chunks, pixels=b"", bits=8, colors=2, after=()):
    """A PNG of any size in its header.

    Args:
        chunks: more chunks before the pixels, pairs of a name and a body.
        pixels: the rows, uncompressed.
        after: chunks behind the pixels.
    """
    header = struct.pack(">IIBBBBB", width, height, bits, colors, 0, 0, 0)
    body = (b"IDAT", zlib.compress(pixels)), *after, (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body))
        + name
        + body
        + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", header), *chunks, *body)
    )


def bomb(side, channels=3):
    """A whole PNG of ``side`` x ``side`` black pixels, a thousandth of their size."""
    packer = zlib.compressobj(9)
    row = bytes(1 + channels * side)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    whole = png(side, side, colors={1: 0, 3: 2}[channels])
    at = whole.index(b"IDAT") - 4
    chunk = b"IDAT" + rows
    crc = struct.pack(">I", zlib.crc32(chunk))
    return whole[:at] + struct.pack(">I", len(rows)) + chunk + crc + whole[-12:]


def tiff_tags(number, size=100_000, order="<"):
    """TIFF or EXIF data with tags that all refer to the same ``size`` bytes."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    entries = [
        struct.pack(order + "HHII", tag, 7, size, 8)
        for tag in range(40_000, 40_000 + number)
    ]
    return (
        head
        + struct.pack(order + "I", 8 + size)
        + bytes(size)
        + struct.pack(order + "H", number)
        + b"".join(entries)
        + bytes(4)
    )


def tiff(width, height, order="<"):
    """A TIFF of grey pixels with a header of any size, and one strip."""
    entries = {
        **{256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1},
        **{278: height, 279: 64},
    }
    return (
        {"<": b"II*\0", ">": b"MM\0*"}[order]
        + struct.pack(order + "I", 8 + 64)
        + bytes(64)
        + struct.pack(order + "H", len(entries))
        + b"".join(struct.pack(order + "HHII", t, 4, 1, v) for t, v in entries.items())
        + bytes(4)
    )


def jpeg(width=64, height=48, **options):
    """A grey JPEG."""
    file = io.BytesIO()
    PIL.Image.new("L", (width, height), 99).save(file, "JPEG", **options)
    return file.getvalue()


def many_scans(number, side=64):
    """A progressive JPEG whose last scan is repeated."""
    whole = jpeg(side, side, progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * number + whole[-2:]


def with_segments(*bodies, marker=0xE1):
    """A JPEG with application segments, such as EXIF data."""
    whole = jpeg()
    segments = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
        for body in bodies
    )
    return whole[:2] + segments + whole[20:]  # without JFIF, whose dpi would do


def video(file, frames=12, codec="mp4v", side=64):
    """Write a video of grey frames, and return the file."""
    codec_number = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(str(file), codec_number, 25, (side, side))
    for number in range(frames):
        writer.write(np.full((side, side, 3), 10 * number, np.uint8))
    writer.release()
    return file


def with_samples(content, size, count):
    """An mp4 whose header states ``count`` frames of ``size`` bytes in one chunk."""
    changed = bytearray(content)
    sizes, chunks = content.index(b"stsz"), content.index(b"stsc")
    changed[sizes + 8 : sizes + 16] = struct.pack(">II", size, count)
    changed[chunks + 16 : chunks + 20] = struct.pack(">I", count)
    return bytes(changed)
