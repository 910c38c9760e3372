"""Make mmengine read regular files only: images, label maps, lists of classes.

Opening a pipe waits for somebody who writes into it, and ``/dev/zero`` never ends.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.fileio.backends.local_backend import LocalBackend

from convnext_dense.utils.files import require_regular


def read_regular_files_only() -> None:
    """Check each local file before mmengine opens it."""
    for name in ("get", "get_text"):
        plain = getattr(LocalBackend, name)
        if not hasattr(plain, "__wrapped__"):  # else installed already
            setattr(LocalBackend, name, _checking(plain))


def _checking(plain: Callable) -> Callable:
    """A method of ``LocalBackend`` that checks its file first.

    A file that is missing remains mmengine's FileNotFoundError.
    """

    @functools.wraps(plain)
    def get(self: LocalBackend, filepath: str | Path, *args: Any, **kwargs: Any) -> Any:
        if Path(filepath).exists():
            require_regular(filepath)
        return plain(self, filepath, *args, **kwargs)

    return get
