"""Keeps a second training out of a work dir that a training uses.

Two trainings in one work dir would replace each other's checkpoints. The lock is on
the hidden file ``FILE``, which exists while a training runs and names its process. The
lock ends with that process. If the process is killed, the file stays without a lock,
and the next training takes it. Testing and reports read a work dir, and need no lock.
"""

import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from mmengine.logging import print_log

from convnext_dense.errors import InputError, printable
from convnext_dense.utils import locks
from convnext_dense.utils.distributed import on_main

FILE = ".convnext_dense.lock"
_START = "convnext_dense: "  # of the file's content
_LONGEST = 200  # characters of it in a message


@contextmanager
def locked(work_dir: Path) -> Iterator[None]:
    """Lock a work dir for this run; of several processes, rank 0 holds the lock.

    Args:
        work_dir: created if it does not exist.

    Raises:
        InputError: another training uses the work dir, or the lock's file cannot be
            created. Every process raises it.
    """
    handles: list[int] = []  # of rank 0
    on_main(partial(_take, work_dir, handles))
    try:
        yield
    finally:
        for handle in handles:
            _release(work_dir / FILE, handle)


def _take(work_dir: Path, handles: list[int]) -> None:
    """Add the lock's descriptor to ``handles``; none if there are no locks here."""
    path = work_dir / FILE
    while not handles:
        try:
            work_dir.mkdir(parents=True, exist_ok=True)
            handle = _open(path)
        except OSError as error:
            raise InputError(
                f"{path}, with which a training keeps others out of its work dir, "
                f"cannot be opened: {error.strerror}. Name another --work-dir"
            ) from error
        try:
            is_free = locks.take(handle)
        except OSError as error:
            os.close(handle)
            path.unlink(missing_ok=True)
            print_log(
                f"the file system of {work_dir} has no locks ({error.strerror}): do "
                "not start a second training in this work dir",
                "current",
            )
            return
        if not is_free:
            holder = os.pread(handle, _LONGEST, len(_START)).decode(errors="replace")
            os.close(handle)
            raise InputError(
                f"another training uses the work dir {work_dir}: "
                f"{printable(holder.strip()) or 'one that has just begun'}. Wait for "
                "it, stop it, or name another --work-dir"
            )
        if not locks.is_at(path, handle):  # its run has just ended, and removed it
            locks.release(handle)
            continue
        handles.append(handle)
        with suppress(OSError):  # on a full disk the lock has no text
            os.ftruncate(handle, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            process = f"process {os.getpid()} on {platform.node()} since {since}"
            os.pwrite(handle, f"{_START}{process}\n".encode(), 0)


def _open(path: Path) -> int:
    """Open the lock's file, or create it.

    Raises:
        InputError: something else has this name, which must not be overwritten.
    """
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK"):
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise _not_ours(path) from error
        raise
    status = os.fstat(handle)
    content = os.pread(handle, len(_START), 0) if stat.S_ISREG(status.st_mode) else b"?"
    if status.st_nlink > 1 or content not in (b"", _START.encode()):
        os.close(handle)
        raise _not_ours(path)
    return handle


def _not_ours(path: Path) -> InputError:
    return InputError(
        f"{path} is not the file with which a training keeps others out of its work "
        "dir: rename it, or name another --work-dir"
    )


def _release(path: Path, handle: int) -> None:
    """Remove the file, unless another has its place, and end the lock."""
    with suppress(OSError):
        if locks.is_at(path, handle):
            path.unlink()
    locks.release(handle)
