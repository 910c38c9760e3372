"""Changes headers of images, with right checksums where the format has them."""

import struct
import zlib
from random import Random

from . import plain_bytes
from .values import INTEGERS

_SIDES = (0, 1, 2, 64, 100, 1000, 13000, 30000, 65535, 65536, 2**24, 2**31 - 1, 2**31)


def change(data: bytes, rng: Random, corpus: list[bytes] | None = None) -> bytes:
    """Change an image of whatever format."""
    if rng.random() < 0.3:
        return plain_bytes.change(data, rng, corpus)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _change_png(data, rng)
    if data[:2] == b"\xff\xd8":
        return _change_jpeg(data, rng)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _change_tiff(data, rng)
    if data[:2] == b"BM":
        return _change_field(data, rng, (2, 10, 14, 18, 22, 26, 28, 30, 34, 46), "<")
    if data[:3] == b"GIF":
        return _change_field(data, rng, (6, 8, 10, 12, 13), "<", "H")
    if data[:4] == b"RIFF":
        return _change_field(data, rng, (4, 12, 16, 20, 24, 26, 28), "<")
    return plain_bytes.change(data, rng, corpus)


def _change_field(
    data: bytes, rng: Random, places: tuple, order: str, size: str = ""
) -> bytes:
    layout = order + (size or rng.choice("HI"))
    place = rng.choice(places)
    value = rng.choice((*_SIDES, *INTEGERS)) & ((1 << 8 * struct.calcsize(layout)) - 1)
    packed = struct.pack(layout, value)
    return data[:place] + packed + data[place + len(packed) :]


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The names and contents of a PNG's chunks."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    return chunks


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, with right lengths and checksums."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in chunks:
        check = zlib.crc32(name + content)
        parts.append(
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)
        )
    return b"".join(parts)


def _change_png(data: bytes, rng: Random) -> bytes:
    chunks = png_chunks(data)
    place = rng.randrange(len(chunks))
    name, content = chunks[place]
    match rng.randrange(8):
        case 0 | 1 | 2:
            side = struct.pack(">I", rng.choice(_SIDES))
            header = bytearray(chunks[0][1])
            start = rng.choice((0, 4))
            header[start : start + 4] = side
            chunks[0] = chunks[0][0], bytes(header)
        case 3:
            header = bytearray(chunks[0][1])
            header[rng.randrange(8, 13)] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
            chunks[0] = chunks[0][0], bytes(header)
        case 4:
            chunks[place] = name, plain_bytes.change(content, rng)
        case 5:
            chunks.insert(rng.randrange(len(chunks) + 1), (name, content))
        case 6:
            extra = rng.choice((b"tRNS", b"PLTE", b"acTL", b"iCCP", b"zTXt", b"eXIf"))
            body = rng.randbytes(rng.choice((0, 1, 3, 256)))
            if extra == b"zTXt":  # a bomb of text
                body = b"a\0\0" + zlib.compress(bytes(rng.choice((10, 2**20, 2**25))))
            chunks.insert(1, (extra, body))
        case _:
            del chunks[place]
    return png(chunks)


def _change_jpeg(data: bytes, rng: Random) -> bytes:
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        (size,) = struct.unpack(">H", data[place + 2 : place + 4])
        segments.append((place, data[place + 1], size))
        place += 2 + size
    frames = [s for s in segments if s[1] in (0xC0, 0xC1, 0xC2)]
    if frames and rng.random() < 0.5:
        start = frames[0][0] + rng.choice((5, 7))  # height, width
        side = struct.pack(">H", rng.choice(_SIDES) & 0xFFFF)
        return data[:start] + side + data[start + 2 :]
    if not segments:
        return plain_bytes.change(data, rng)
    start, _, size = rng.choice(segments)
    place = start + rng.randrange(1, size + 2)
    return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]


def _change_tiff(data: bytes, rng: Random) -> bytes:
    order = "<" if data[:2] == b"II" else ">"
    (table,) = struct.unpack(f"{order}I", data[4:8])
    if table + 2 > len(data):
        return plain_bytes.change(data, rng)
    (number,) = struct.unpack(f"{order}H", data[table : table + 2])
    if rng.random() < 0.1 or not number:
        return _change_field(data, rng, (4, table), order)
    entry = table + 2 + 12 * rng.randrange(min(number, 40))
    place, layout = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")))
    return _change_field(data, rng, (entry + place,), order, layout)
