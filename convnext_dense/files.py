"""Files that are whole or not there."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


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
        partial.replace(path)
    except InputError:
        raise
    except Exception as error:  # OSError, and what torch and others make of it
        raise InputError(f"{path} could not be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


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
