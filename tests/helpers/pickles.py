"""Writes pickles instruction by instruction, and puts them into checkpoint files."""

import io
import zipfile
from pathlib import Path

import torch


def text(value: str) -> bytes:
    content = value.encode("utf-8", "surrogatepass")
    return b"X" + len(content).to_bytes(4, "little") + content


def name(full: str) -> bytes:
    """GLOBAL: a class or a function."""
    module, _, plain = full.rpartition(".")
    return f"c{module}\n{plain}\n".encode()


def tuple_of(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def call(function: str, *arguments: bytes) -> bytes:
    """REDUCE."""
    return name(function) + tuple_of(*arguments) + b"R"


def new(cls: str) -> bytes:
    """NEWOBJ."""
    return name(cls) + b")\x81"


def dict_of(*items: bytes) -> bytes:
    return b"}(" + b"".join(items) + b"u"


def number(value: int) -> bytes:
    """LONG1."""
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def storage(key: str, count: int, cls: str = "torch.FloatStorage") -> bytes:
    """A reference to a storage."""
    reference = tuple_of(
        text("storage"), name(cls), text(key), text("cpu"), number(count)
    )
    return reference + b"Q"


def tensor(
    reference: bytes,
    size: list[int],
    stride: list[int],
    offset: int = 0,
) -> bytes:
    return call(
        "torch._utils._rebuild_tensor_v2",
        reference,
        number(offset),
        tuple_of(*map(number, size)),
        tuple_of(*map(number, stride)),
        b"\x89",
        call("collections.OrderedDict"),
    )


def write_zip(
    file: Path, pickle: bytes, members: dict[str, bytes] | None = None, **kwargs
) -> Path:
    """An archive like torch.save's; ``members`` are its storages by key."""
    with zipfile.ZipFile(file, "w", **kwargs) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickle + b".")
        for key, content in (members or {}).items():
            archive.writestr(f"archive/data/{key}", content)
    return file


def write_legacy(
    file: Path, pickle: bytes, keys: bytes | None = None, tail: bytes = b""
) -> Path:
    """A file of torch.save's old format.

    Args:
        keys: the pickle with the list of storages; empty if None.
        tail: the content of the storages.
    """
    stream = io.BytesIO()
    torch.save(0, stream, _use_new_zipfile_serialization=False)
    content = stream.getvalue()
    end = b"\x80\x02K\x00.\x80\x02]q\x00."  # the pickles of 0 and of no storages
    assert content.endswith(end)
    head = content.removesuffix(end)
    keys = b"\x80\x02]." if keys is None else keys
    file.write_bytes(head + b"\x80\x02" + pickle + b"." + keys + tail)
    return file
