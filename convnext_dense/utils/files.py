"""Opens regular files only, and writes files that are complete or absent.

If writing is interrupted, no incomplete file has the final name.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from convnext_dense.errors import InputError

from . import partials

# What fsync raises where a file system, or a folder in it, has no fsync.
_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES}
_NOT_REGULAR = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def require_regular(path: str | os.PathLike) -> os.stat_result:
    """Check that a path is a regular file, or a link to one, without opening it.

    Opening a pipe waits until somebody writes to it, reading ``/dev/zero`` never ends,
    and opening some devices changes them.

    Returns:
        the file's ``os.stat``.

    Raises:
        InputError: it does not exist, cannot be looked up, or is a pipe, a device, a
            socket or a folder.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null character
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{os.fspath(path)} cannot be read: {why}") from error
    if not stat.S_ISREG(status.st_mode):
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{os.fspath(path)} is a folder: name a file")
        what = _NOT_REGULAR.get(stat.S_IFMT(status.st_mode), "not a regular file")
        raise InputError(
            f"{os.fspath(path)} is {what}: copy its content to a file, and name that"
        )
    return status


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a regular file for reading bytes.

    Raises:
        InputError: as ``require_regular``, or the file may not be read.
    """
    require_regular(path)
    # Where a pipe has taken the file's place since: do not wait for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        return open(path, "rb", opener=lambda name, _: os.open(name, flags))
    except OSError as error:
        raise InputError(
            f"{os.fspath(path)} cannot be read: {error.strerror}"
        ) from error


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of a regular file.

    Raises:
        InputError: as ``open_regular``.
    """
    with open_regular(path) as file:
        return file.read()


def read_text(path: str | os.PathLike) -> str:
    """The content of a regular file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: as ``open_regular``, or the content is not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{os.fspath(path)} is not text in UTF-8: {error}; save it as UTF-8"
        ) from error


def detach(path: Path) -> None:
    """Give a file that is about to be written into content and a name of its own.

    Writing through a link, or into a file that has another name elsewhere, would change
    the file there.
    """
    try:
        status = os.lstat(path)
    except OSError:  # it does not exist
        return
    if stat.S_ISDIR(status.st_mode):
        return
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return
    if os.path.isfile(path):
        content = read_bytes(path)
        with whole(path) as partial:
            partial.write_bytes(content)
    else:  # a link to nothing, or a pipe
        path.unlink()


def check_folder(folder: str | os.PathLike, name: str) -> None:
    """Check that files can be written into a folder, which need not exist yet.

    Args:
        name: the folder's name in messages, such as '--out'.

    Raises:
        InputError: a path above the folder is a file, or writing is not permitted.
    """
    folder = Path(folder).absolute()
    existing = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
    if not existing.is_dir():
        raise InputError(
            f"{name} {folder}: {existing} is a file, not a folder: choose another place"
        )
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(
            f"{name} {folder}: nothing can be written into {existing} "
            f"({error.strerror}); name another place"
        ) from error


@contextmanager
def no_empty_folders(folder: Path) -> Iterator[None]:
    """After an error, remove a folder and those above it, if they are new and empty."""
    absent = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        yield
    except BaseException:
        for path in absent:
            with suppress(OSError):  # it does not exist, or others have written into it
                path.rmdir()
        raise


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename it to ``path`` at the end.

    Raises:
        InputError: the file cannot be written; an older file at ``path`` is unchanged.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder, "a.txt")) as partial:
    ...         _ = partial.write_text("text")
    ...     Path(folder, "a.txt").read_text()
    'text'
    """
    path = Path(path)
    with _explained(path), partials.file(path.parent, path.suffix) as partial:
        yield partial
        if not partial.stat().st_size:  # some libraries do not raise an error
            raise OSError("nothing was written")
        written = os.lstat(partial)
        _to_disk(partial)  # before renaming: the final name must mean a whole file
        try:
            partial.replace(path)
        except FileNotFoundError:
            # NFS repeats a rename whose answer was lost, and finds it done already.
            if not os.path.lexists(path) or os.lstat(path).st_ino != written.st_ino:
                raise
        _to_disk(path.parent)


@contextmanager
def whole_with_others(path: str | os.PathLike) -> Iterator[Path]:
    """``whole`` for a file that refers to further files in its folder.

    Yield a path of the same name in a temporary folder; all files of that folder are
    moved into the folder of ``path`` at the end.

    Raises:
        InputError: the files cannot be written.
    """
    path = Path(path)
    with _explained(path), partials.folder(path.parent) as folder:
        partial = folder / path.name
        yield partial
        others = [file for file in folder.iterdir() if file != partial]
        for file in (*others, partial):
            _to_disk(file)
        if others:
            path.unlink(missing_ok=True)  # the old file would name new ones
        for file in (*others, partial):
            file.replace(path.parent / file.name)
        _to_disk(path.parent)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what is raised while ``path`` is written into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # OSError, or what torch and others raise for it
        why = getattr(error, "strerror", None) or error  # not the partial file's name
        raise InputError(f"{path} could not be written: {why}") from error


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power failure."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # not every platform and file system can open a folder
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(handle)
