"""Small files kept between runs: compiled kernels, measured choices.

A file is whole or does not exist, and a damaged one counts as not existing. Processes
may read and write the same names at the same time. Where nothing can be kept, callers
do their work again.
"""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

_MAGIC = b"convnext_dense cache 1\n"
_DIGEST = hashlib.sha256().digest_size


def folder() -> Path | None:
    """The folder of the cache, made if it does not exist yet.

    It is ``$CONVNEXT_DENSE_CACHE``, else ``$XDG_CACHE_HOME/convnext_dense``, else
    ``~/.cache/convnext_dense``. None if it cannot be made or written into.
    """
    named = os.environ.get("CONVNEXT_DENSE_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if named:
            path = Path(named).expanduser().absolute()
        elif os.path.isabs(shared):  # its standard tells to ignore a relative one
            path = Path(shared, "convnext_dense")
        else:
            path = Path.home() / ".cache/convnext_dense"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home is known
        return None
    return path if os.access(path, os.R_OK | os.W_OK | os.X_OK) else None


def read(name: str) -> bytes | None:
    """What was written under a name; None if nothing was, or not all of it is left."""
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
    """Keep ``data`` under a file name, in place of what was kept there.

    Does nothing where files cannot be written.
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
