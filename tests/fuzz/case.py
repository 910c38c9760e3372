"""The files of a case, in memory, in a folder and as one archive."""

import io
import os
import tarfile
from pathlib import Path
from typing import NamedTuple


class Link(NamedTuple):
    """A symbolic link to ``target``."""

    target: str


class Pipe(NamedTuple):
    """A FIFO that nobody writes to."""


# The content of each file by its path in the case's folder, with '/'.
Files = dict[str, bytes | Link | Pipe]


def write(files: Files, folder: Path) -> None:
    """Write the files of a case below ``folder``.

    Names that no file can have are left out, and so are names that lead outside.
    """
    root = folder.resolve()
    for name, content in files.items():
        try:
            path = folder / name
            if root not in (path.parent.resolve() / path.name).parents:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Link):
                path.symlink_to(content.target)
            elif isinstance(content, Pipe):
                os.mkfifo(path)
            else:
                path.write_bytes(content)
        except (OSError, ValueError):  # too long, a null character, a file as parent
            continue


def size(files: Files) -> int:
    """The bytes of all files together."""
    return sum(len(content) for content in files.values() if type(content) is bytes)


def archive(files: Files) -> bytes:
    """The files as a tar archive, the same bytes for the same files.

    Names that no file can have are left out.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            try:
                name.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                continue
            member = tarfile.TarInfo(name)
            if isinstance(content, Link):
                member.type, member.linkname = tarfile.SYMTYPE, content.target
            elif isinstance(content, Pipe):
                member.type = tarfile.FIFOTYPE
            else:
                member.size = len(content)
            data = io.BytesIO(content) if type(content) is bytes else None
            tar.addfile(member, data)
    return stream.getvalue()


def unarchive(data: bytes) -> Files:
    """The files in what ``archive`` returned."""
    files: Files = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            if member.issym():
                files[member.name] = Link(member.linkname)
            elif member.isfifo():
                files[member.name] = Pipe()
            elif content := tar.extractfile(member):
                files[member.name] = content.read()
    return files
