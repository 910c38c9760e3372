"""Reads the zip archives that ``torch.save`` writes.

An archive has a pickle, ``NAME/data.pkl``, and a file for each storage,
``NAME/data/KEY``, which the pickle refers to (torch/serialization.py, ``_save``).
torch.load makes each storage as large as the pickle says, and does not look at the
checksums. This module compares both with the archive, in one pass over its bytes.
"""

import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import torch

from .other_formats import archive_mistake
from .storages import on_meta, place, reference, swap_bytes
from .unpickling import CheckpointTable, Damaged, Refused, Storage, TooMuch, unpickle

# torch.save does not compress. Archives that other programs have packed again are read
# if they are not made to fill the memory.
MOST_COMPRESSED = 20
_CHUNK = 2**20


def read(
    file: BinaryIO, map_location: Any, table: type[CheckpointTable] = CheckpointTable
) -> Any:
    """The content of an archive.

    Args:
        file: at its start; it can seek.
        map_location: as in ``torch.load``. With 'meta', the content of storages is
            compared with the checksums and not kept.

    Raises:
        Refused: it asks for something that is not data.
        Exception: it is damaged.
    """
    with _opened(file, map_location) as archive:
        return archive.content(table)


def check(file: BinaryIO) -> None:
    """Compare all of an archive with its checksums.

    Raises:
        Exception: it is damaged.
    """
    with _opened(file, None) as archive:
        archive.check()


@contextmanager
def _opened(file: BinaryIO, map_location: Any) -> Iterator["_Archive"]:
    if not zipfile.is_zipfile(file):
        raise Damaged("it is cut short")
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        yield _Archive(file, archive, size, map_location)


class _Archive:
    """One archive, and the storages that were read from it."""

    def __init__(
        self, file: BinaryIO, archive: zipfile.ZipFile, size: int, map_location: Any
    ) -> None:
        self._file = file
        self._archive = archive
        self._map_location = map_location
        self._storages: dict[str, torch.UntypedStorage] = {}
        members = archive.infolist()
        self._members = {member.filename: member for member in members}
        if len(self._members) < len(members):
            raise Damaged("two files in it have the same name")
        if sum(m.file_size for m in members) > MOST_COMPRESSED * size + _CHUNK:
            raise TooMuch("it unpacks to far more than its size")
        pickles = [name for name in self._members if name.endswith("data.pkl")]
        if not pickles:
            raise Damaged(archive_mistake(self._members))
        self._prefix = min(pickles, key=len).removesuffix("data.pkl")
        order = self._members.get(f"{self._prefix}byteorder")
        self._swapped = order is not None and (
            self._bytes(order).numpy().tobytes() != sys.byteorder.encode()
        )

    def check(self) -> None:
        """Compare all of the archive with its checksums."""
        for member in self._members.values():
            self._read(member, None)

    def content(self, table: type[CheckpointTable]) -> Any:
        """What the pickle describes."""
        if any(name.endswith("/constants.pkl") for name in self._members):
            raise Refused("torch.jit (it is a TorchScript program)")
        pickle = self._bytes(self._members[f"{self._prefix}data.pkl"])
        return unpickle(pickle.numpy().tobytes(), self._storage, table)[0]

    def _storage(self, value: Any) -> Storage:
        dtype, key, device, count = reference(value)
        member = self._members.get(f"{self._prefix}data/{key}")
        if member is None:
            raise Damaged(f"it lacks the content of a tensor, {key:.40}")
        if not count <= member.file_size / dtype.itemsize < count + 1:
            raise Damaged(f"the content of a tensor in it, {key}, has another size")
        if key not in self._storages:
            self._storages[key] = self._load(member, dtype, device)
        return Storage(self._storages[key], dtype)

    def _load(
        self, member: zipfile.ZipInfo, dtype: torch.dtype, device: str
    ) -> torch.UntypedStorage:
        if on_meta(self._map_location):
            self._read(member, None)
            return torch.UntypedStorage(member.file_size, device="meta")
        content = self._bytes(member)
        if self._swapped:
            swap_bytes(content, dtype)
        return place(content.untyped_storage(), device, self._map_location)

    def _bytes(self, member: zipfile.ZipInfo) -> torch.Tensor:
        content = torch.empty(member.file_size, dtype=torch.uint8)
        self._read(member, content.numpy())
        return content

    def _read(self, member: zipfile.ZipInfo, target: np.ndarray | None) -> None:
        """Read a member and compare it with its checksum.

        Args:
            target: what is filled with the content; None to compare only.
        """
        stored = member.compress_type == zipfile.ZIP_STORED
        if not stored and member.compress_type != zipfile.ZIP_DEFLATED:
            # LZMA takes as much memory as the file says.
            raise Damaged(f"{member.filename} in it is compressed in a rare format")
        if stored:
            self._seek(member)
        stream: Any = self._file if stored else self._archive.open(member)
        chunk = np.empty(min(_CHUNK, member.file_size), np.uint8)
        checksum = 0
        for start in range(0, member.file_size, _CHUNK):
            length = min(_CHUNK, member.file_size - start)
            content = chunk if target is None else target[start:]
            content = content[:length]
            if stream.readinto(content) != length:
                raise Damaged("it is cut short")
            checksum = zlib.crc32(content.data, checksum)
        # 0: written with torch.serialization.set_crc32_options(False)
        if member.CRC not in (0, checksum):
            raise Damaged(f"{member.filename} in it has changed since it was written")

    def _seek(self, member: zipfile.ZipInfo) -> None:
        """Go to the content of a member that is not compressed."""
        self._file.seek(member.header_offset)
        header = self._file.read(30)
        if header[:4] != b"PK\3\4":
            raise Damaged(f"{member.filename} in it is not where it should be")
        name, extra = struct.unpack("<HH", header[26:])
        self._file.seek(name + extra, os.SEEK_CUR)
