"""Changes bytes without knowing what they mean."""

import struct
from random import Random

from .values import INTEGERS


def change(data: bytes, rng: Random, corpus: list[bytes] | None = None) -> bytes:
    """Flip, cut, insert, repeat, overwrite or splice.

    Args:
        corpus: other files, whose ends may replace the end of this one.
    """
    content = bytearray(data)
    if not content:
        return rng.randbytes(rng.randrange(64))
    start = rng.randrange(len(content))
    # Headers are at the start, tables at the end.
    if rng.random() < 0.4:
        start = min(len(content) - 1, int(rng.expovariate(1 / 64)))
    length = min(len(content) - start, rng.choice((1, 1, 2, 4, 8, 16, 256)))
    match rng.randrange(9):
        case 0:
            content[start] ^= 1 << rng.randrange(8)
        case 1:
            content[start : start + length] = rng.randbytes(length)
        case 2:
            del content[start : start + length]
        case 3:
            content[start:start] = rng.randbytes(length)
        case 4:
            content[start:start] = content[start : start + length] * rng.choice((1, 9))
        case 5:
            layout = rng.choice(("<I", ">I", "<Q", ">Q", "<H", ">H", "B"))
            size = struct.calcsize(layout)
            value = rng.choice(INTEGERS) & ((1 << 8 * size) - 1)
            content[start : start + size] = struct.pack(layout, value)
        case 6:
            del content[start:]
        case 7 if corpus:
            other = rng.choice(corpus)
            content[start:] = other[rng.randrange(len(other) + 1) :]
        case _:
            content[start : start + length] = bytes(length)
    return bytes(content)
