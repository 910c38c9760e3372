"""Changes zip and tar archives, and writes them again with right checksums."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from random import Random

from . import plain_bytes
from .values import INTEGERS, word

Members = list[tuple[str, bytes]]


def members(data: bytes) -> Members:
    """The names and contents of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def zipped(content: Members, rng: Random, compress: float = 0.05) -> bytes:
    """A zip archive, as torch writes it: stored; now and then deflated."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in content:
            info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode() or "x")
            if rng.random() < compress:
                info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return stream.getvalue()


def change_zip(
    data: bytes, rng: Random, change_pickle: Callable[[bytes, Random], bytes]
) -> bytes:
    """Change members, names or the directory of a zip archive.

    Args:
        change_pickle: changes the content of members that are pickles.
    """
    content = members(data)
    place = rng.randrange(len(content))
    name, inside = content[place]
    match rng.randrange(12):
        case 0 | 1 | 2 | 3:
            pickles = [i for i, (n, _) in enumerate(content) if n.endswith(".pkl")]
            place = rng.choice(pickles or [place])
            name, inside = content[place]
            content[place] = name, change_pickle(inside, rng)
        case 4:
            content[place] = name, plain_bytes.change(inside, rng)
        case 5:
            content[place] = word(rng)[:60000], inside
        case 6:
            head, _, tail = name.rpartition("/")
            new = rng.choice(("../", "/", "a/b/c/", "", "./", head + "//")) + tail
            content[place] = new, inside
        case 7:
            del content[place]
        case 8:
            content.append((name, inside if rng.random() < 0.5 else b"x"))
        case 9:  # a bomb: as much as 64 MB in a few kB
            size = rng.choice((2**20, 2**24, 2**26))
            content[place] = name, bytes(size)
            return zipped(content, rng, compress=1)
        case 10:
            top = name.partition("/")[0]
            extra = rng.choice(("constants.pkl", "version", "byteorder", ".data/x"))
            content.append(
                (f"{top}/{extra}", rng.choice((b"3", b"big", b"\x80\x02N.")))
            )
        case _:
            content[place] = name, inside[: rng.randrange(len(inside) + 1)]
    result = zipped(content, rng)
    if rng.random() < 0.25:
        result = _change_directory(result, rng)
    return result


def _change_directory(data: bytes, rng: Random) -> bytes:
    """Change a number in a header: sizes, offsets, flags, methods, checksums."""
    headers = [
        (start, size)
        for signature, size in ((b"PK\1\2", 46), (b"PK\3\4", 30), (b"PK\5\6", 22))
        for start in _all(data, signature)
    ]
    if not headers:
        return data
    start, size = rng.choice(headers)
    field = start + rng.randrange(4, size - 1)
    layout = rng.choice(("<H", "<I"))
    limit = (1 << 8 * struct.calcsize(layout)) - 1
    changed = bytearray(data)
    end = min(len(changed), field + struct.calcsize(layout))
    changed[field:end] = struct.pack(layout, rng.choice(INTEGERS) & limit)
    return bytes(changed[: len(data)])


def _all(data: bytes, signature: bytes) -> list[int]:
    places, place = [], data.find(signature)
    while place >= 0:
        places.append(place)
        place = data.find(signature, place + 1)
    return places


def change_tar(
    data: bytes, rng: Random, change_pickle: Callable[[bytes, Random], bytes]
) -> bytes:
    """Change members of a tar archive: contents, names, types and sizes."""
    stream, result = io.BytesIO(data), io.BytesIO()
    with tarfile.open(fileobj=stream) as old:
        content = [(info, (old.extractfile(info) or stream).read()) for info in old]
    place = rng.randrange(len(content))
    info, inside = content[place]
    match rng.randrange(8):
        case 0 | 1 | 2:
            content[place] = info, change_pickle(inside, rng)
        case 3:
            info.type = rng.choice(
                (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
            )
            info.linkname = rng.choice(("/etc/hostname", "pickle", "/dev/zero", "../x"))
        case 4:
            info.name = rng.choice(("../x", "/tmp/x", word(rng)[:90] or "x"))
        case 5:
            del content[place]
        case 6:
            content[place] = info, plain_bytes.change(inside, rng)
        case _:
            content.append((info, inside))
    with tarfile.open(fileobj=result, mode="w", format=tarfile.PAX_FORMAT) as new:
        for info, inside in content:
            info.size = len(inside) if info.isreg() else 0
            try:
                new.addfile(info, io.BytesIO(inside) if info.isreg() else None)
            except (ValueError, UnicodeError):  # a name that no archive can have
                continue
    return result.getvalue()
