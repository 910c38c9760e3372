"""Partial files: what is written before it gets its final name.

A partial file is in the folder of the final one, so that renaming does not copy. A
process that is killed leaves its partial file; the next one that writes into the folder
removes it. It recognises the file by its name, and by its lock, which ended with the
killed process.
"""

import functools
import os
import platform
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from . import locks

# The name of a partial file: the machine, random digits, and the final file's suffix,
# by which libraries choose a format.
_NAME = re.compile(
    r"\.convnext_dense-partial-([0-9a-f]{8})-[0-9a-f]{8}(\..*)?", re.DOTALL
)
# Where locks cannot tell that its process has ended, a partial file of this age is
# abandoned.
_OLD = 24 * 60 * 60  # seconds

_cleaned: set[str] = set()  # folders without partial files of killed processes


def file(parent: Path, suffix: str) -> AbstractContextManager[Path]:
    """Yield a new empty file in a folder, and remove it at the end if it is left.

    Args:
        suffix: of its name, such as '.pth'.

    Raises:
        OSError: it cannot be created.
    """
    return _new(parent, _create_file, suffix)


def folder(parent: Path) -> AbstractContextManager[Path]:
    """Yield a new folder in a folder, and remove it at the end with what is left in it.

    Raises:
        OSError: it cannot be created.
    """
    return _new(parent, _create_folder, "")


def remove_left(parent: Path) -> None:
    """Remove the partial files in a folder that killed processes left.

    Files that a living process is writing stay, also those of a process on another
    machine or in another container. So does what has another name, such as a user's
    own file.
    """
    try:
        entries = list(os.scandir(parent))
    except OSError:  # it does not exist, or may not be read
        return
    for entry in entries:
        name = _NAME.fullmatch(entry.name)
        if name and _is_abandoned(entry, name[1]):
            remove(Path(entry.path))


@contextmanager
def _new(parent: Path, create: Callable[[Path], int], suffix: str) -> Iterator[Path]:
    """Yield a locked new file or folder in ``parent``; remove it at the end."""
    if os.path.abspath(parent) not in _cleaned:
        _cleaned.add(os.path.abspath(parent))
        remove_left(parent)
    while True:
        name = f".convnext_dense-partial-{_machine()}-{secrets.token_hex(4)}{suffix}"
        path = parent / name
        handle = create(path)
        try:
            locked = locks.take(handle)
        except OSError:  # no locks here: its age tells when it is abandoned
            os.close(handle)
            break
        # remove_left of another process may have come before the lock.
        if locked and locks.is_at(path, handle):
            break
        (locks.release if locked else os.close)(handle)
    process = os.getpid()
    try:
        yield path
    finally:
        if os.getpid() == process:  # not in a process forked inside
            remove(path)
            locks.release(handle)


def _create_file(path: Path) -> int:
    # O_EXCL: no file is replaced, and no link at this name is followed.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _create_folder(path: Path) -> int:
    path.mkdir()
    try:
        return os.open(path, os.O_RDONLY)
    except OSError:
        path.rmdir()
        raise


def _is_abandoned(entry: os.DirEntry, machine: str) -> bool:
    """Whether the process that wrote a partial file has ended.

    Args:
        entry: the partial file or folder.
        machine: on which it was written, from its name.
    """
    try:
        status = entry.stat(follow_symlinks=False)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            return False  # not ours: a link, a pipe
        flags = os.O_RDONLY if entry.is_dir() else os.O_RDWR  # NFS needs it for a lock
        handle = os.open(entry.path, flags | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # it is gone, or may not be opened
        return False
    try:
        locked = locks.take(handle)
    except OSError:
        locked, machine = True, ""  # the lock tells nothing
    (locks.release if locked and machine else os.close)(handle)
    if not locked:
        return False
    # The lock of another machine may not be seen here.
    return machine == _machine() or time.time() - status.st_mtime > _OLD


@functools.cache
def _machine() -> str:
    """Eight digits for this machine, the same in all its containers, until it boots."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        text = platform.node()
    return f"{zlib.crc32(text.encode()):08x}"


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content, as far as possible."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
