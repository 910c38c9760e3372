"""Locks on open files and folders that end with the process that holds them.

They are ``flock`` locks. The system releases a lock when its process ends, however it
ends. Data-loader workers are forked and inherit the descriptor of a lock; here each
forked process closes it at once. So workers that outlive a killed run keep no lock, and
a worker that ends releases none.

File systems differ: NFS locks only files that are open for writing, and some network
file systems have no locks.
"""

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_held: set[int] = set()  # descriptors of this process


def take(handle: int) -> bool:
    """Lock an open file or folder for this process, without waiting.

    Returns:
        False if another process, or another descriptor of this process, has the lock.

    Raises:
        OSError: the system or the file system has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    _held.add(handle)
    return True


def release(handle: int) -> None:
    """Close the descriptor of a lock that ``take`` took, which releases the lock.

    In a forked process, which has closed it already, do nothing.
    """
    if handle in _held:
        _held.remove(handle)
        os.close(handle)


def is_at(path: Path, handle: int) -> bool:
    """Whether an open file or folder is the one at ``path``, and no link to it.

    Another process may have removed or replaced it before ``take``.
    """
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except OSError:
        return False


def _close_in_fork() -> None:
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
