"""Files that are whole or not there."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convnext_dense.errors import InputError


def check_folder(folder: str | os.PathLike, name: str) -> None:
    """See whether files can be written into a folder, there or to be made.

    Args:
        name: what messages call it, such as '--out'.

    Raises:
        InputError: it is below a file, or may not be written to.
    """
    folder = Path(folder).absolute()
    there = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
    if not there.is_dir():
        raise InputError(f"{name} {folder}: {there} is no folder; name another place")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(
            f"{name} {folder}: nothing can be written into {there} "
            f"({error.strerror}); name another place"
        ) from error


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to, which is renamed to it at the end.

    Raises:
        InputError: it cannot be written; what was at ``path`` is still there.
    """
    path = Path(path)
    # In the same folder, since renaming must not copy; libraries that choose a
    # format by a file's ending see the same ending.
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
        _to_disk(partial)  # before the name: it must never stand for half a file
        partial.replace(path)
        _to_disk(path.parent)
    except InputError:
        raise
    except Exception as error:  # OSError, and what torch and others make of it
        raise InputError(f"{path} could not be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove what processes left that were killed in the middle of ``whole``."""
    for path in folder.glob(".*"):
        writer = re.match(r"\.(\d+)\.", path.name)
        if writer and not Path("/proc", writer[1]).exists() and path.is_file():
            path.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power failure."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # of a platform or file system that has no such thing
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
    finally:
        os.close(handle)


@contextmanager
def whole_with_others(path: str | os.PathLike) -> Iterator[Path]:
    """The same for a file that may have others beside it, which it names.

    Yield a path of the same name in a folder of its own; all files of that folder
    are beside ``path`` at the end.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            partial = Path(folder) / path.name
            yield partial
            others = [file for file in Path(folder).iterdir() if file != partial]
            if others:
                path.unlink(missing_ok=True)  # an older one would name the new ones
            for file in (*others, partial):
                file.replace(path.parent / file.name)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} could not be written: {error}") from error
