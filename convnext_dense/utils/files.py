"""Writes files so that each is complete or absent, whatever interrupts the writing."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convnext_dense.errors import InputError


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
    # In the same folder, so that renaming does not copy, and with the same suffix,
    # by which libraries choose a format.
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
        _to_disk(partial)  # before renaming: the final name must mean a whole file
        partial.replace(path)
        _to_disk(path.parent)
    except InputError:
        raise
    except Exception as error:  # OSError, or what torch and others raise for it
        raise InputError(f"{path} could not be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove the temporary files of processes that were killed within ``whole``."""
    for path in folder.glob(".*"):
        writer = re.match(r"\.(\d+)\.", path.name)
        if writer and not Path("/proc", writer[1]).exists() and path.is_file():
            path.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power failure."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # not every platform and file system can open a folder
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
    """``whole`` for a file that refers to further files in its folder.

    Yield a path of the same name in a temporary folder; all files of that folder are
    moved into the folder of ``path`` at the end.

    Raises:
        InputError: the files cannot be written.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            partial = Path(folder) / path.name
            yield partial
            others = [file for file in Path(folder).iterdir() if file != partial]
            if others:
                path.unlink(missing_ok=True)  # the old file would name new ones
            for file in (*others, partial):
                file.replace(path.parent / file.name)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} could not be written: {error}") from error
