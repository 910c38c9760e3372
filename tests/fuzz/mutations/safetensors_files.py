"""Changes the JSON header of safetensors files."""

import json
import struct
from random import Random

from . import json_text, plain_bytes
from .values import INTEGERS, change, word

_DTYPES = (
    "F32",
    "F16",
    "BF16",
    "F64",
    "I64",
    "U8",
    "BOOL",
    "F8_E4M3",
    "C64",
    "F4",
    "x",
)


def change_file(data: bytes, rng: Random) -> bytes:
    """Change entries, the text or the length of the header, or the data behind it."""
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    entry = header[rng.choice(names)]
    match rng.randrange(9):
        case 0:
            entry["dtype"] = rng.choice(_DTYPES)
        case 1:
            entry["shape"] = [rng.choice(INTEGERS) for _ in range(rng.randrange(6))]
        case 2:
            entry["data_offsets"][rng.randrange(2)] = rng.choice(INTEGERS)
        case 3:
            header[word(rng)] = dict(entry)
        case 4:
            header["__metadata__"] = change({"format": "pt"}, rng)
        case 5:
            for number in range(rng.choice((10, 1000, 20_000))):
                header[f"a.{number}"] = dict(
                    dtype="F32", shape=[0], data_offsets=[0, 0]
                )
        case 6:
            body = plain_bytes.change(body, rng)
        case _:
            header = change(header, rng)
    text = json_text.dump(header, rng)
    if rng.random() < 0.15:
        text = json_text.change_text(text, rng)
    encoded = text.encode("utf-8", "surrogatepass")
    size = len(encoded)
    if rng.random() < 0.1:
        size = rng.choice((*INTEGERS, size + 1, size - 1)) % 2**64
    return struct.pack("<Q", size) + encoded + body
