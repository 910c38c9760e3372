"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


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
