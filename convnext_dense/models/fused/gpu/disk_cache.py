"""Stores small files between runs: compiled kernels and measured times.

A file is complete or does not exist. A damaged file counts as missing. Several
processes may read and write the same names at the same time. If nothing can be stored,
callers repeat their work in each run.
"""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

_MAGIC = b"convnext_dense cache 1\n"
_DIGEST = hashlib.sha256().digest_size


def folder() -> Path | None:
    """The folder of the cache, created if it does not exist.

    It is ``$CONVNEXT_DENSE_CACHE``, else ``$XDG_CACHE_HOME/convnext_dense``, else
    ``~/.cache/convnext_dense``. None if it cannot be created or written to.
    """
    named = os.environ.get("CONVNEXT_DENSE_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if named:
            path = Path(named).expanduser().absolute()
        elif os.path.isabs(shared):  # the XDG standard ignores relative paths
            path = Path(shared, "convnext_dense")
        else:
            path = Path.home() / ".cache/convnext_dense"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the home folder is unknown
        return None
    return path if os.access(path, os.R_OK | os.W_OK | os.X_OK) else None


def read(name: str) -> bytes | None:
    """The data stored under a name; None if it is missing or damaged."""
    path = folder()
    if path is None:
        return None
    try:
        kept = (path / name).read_bytes()
    except OSError:
        return None
    head = len(_MAGIC) + _DIGEST
    data = kept[head:]
    whole = kept[:head] == _MAGIC + hashlib.sha256(data).digest()
    return data if whole else None


def write(name: str, data: bytes) -> None:
    """Store ``data`` under a file name, replacing what was there.

    Does nothing if files cannot be written.
    """
    path = folder()
    if path is None:
        return
    with contextlib.suppress(OSError):
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path)
        try:
            with open(descriptor, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(data).digest() + data)
            os.replace(temporary, path / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
