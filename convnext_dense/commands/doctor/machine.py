"""Check the machine with the standard library: Python, memory, disk, limits."""

from __future__ import annotations

import os
import platform as system
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...utils.memory import free_memory
from . import remedies
from .finding import ERROR, INFO, OK, WARNING, Finding

PYTHONS = ((3, 10), (3, 13))  # the oldest and the newest that are tested
GB = 1e9
# Training Cascade Mask R-CNN with ConvNeXt-T: a checkpoint takes 1 GB (86 M parameters,
# each with AdamW's two moments). Three are kept while the next is written.
DISK = 5 * GB
MEMORY = 4 * GB  # twice the need of the doctor's own training step
SHARED_MEMORY = 1 * GB  # for the batches of a few workers; Docker's default is 64 MB
OPEN_FILES = 1024  # each tensor that a data-loader worker sends takes one
# The longest path, in characters, of the folder for temporary files. A data-loader
# worker has a socket in it, whose path may have 103 characters (macOS; Linux: 107), and
# 43 of them are the doctor's and multiprocessing's. With a longer path the batches of
# a worker never arrive.
LONGEST_TEMPORARY = 60
# The environment variables that decide which packages, libraries and GPUs are used.
VARIABLES = (
    *("PYTHONPATH", "PYTHONHOME"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("CUDA_HOME", "CUDA_VISIBLE_DEVICES"),
)


def python() -> Iterator[Finding]:
    """Check that this Python is one of those that are tested."""
    message = f"{system.python_version()}, {sys.executable}"
    (first, last), version = PYTHONS, tuple(sys.version_info[:2])
    tested = f"{first[0]}.{first[1]} to {last[0]}.{last[1]}"
    remedy = f"convnext_dense is tested with Python {tested}: "
    if version < first:
        yield Finding(ERROR, "Python", message, remedy + remedies.FRESH)
    elif version > last:
        remedy += "use one of them if a package cannot be installed or imported"
        yield Finding(WARNING, "Python", message, remedy)
    else:
        yield Finding(OK, "Python", message)


def platform() -> Iterator[Finding]:
    """Name the system, the CPU cores and the environment variables."""
    cores: int | None
    try:
        cores = len(os.sched_getaffinity(0))  # the cores that this process may use
    except AttributeError:  # not Linux
        cores = os.cpu_count()
    yield Finding(INFO, "platform", f"{system.platform()}, {cores} CPU cores")
    values = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    if values:
        yield Finding(INFO, "environment", " ".join(values))


def memory() -> Iterator[Finding]:
    """Check that enough memory is free."""
    free = free_memory()
    if free is None:
        yield Finding(INFO, "memory", "this system does not report its free memory")
        return
    message = f"{free / GB:.1f} GB free"
    if free < MEMORY:
        yield Finding(WARNING, "memory", message, remedies.MEMORY)
    else:
        yield Finding(OK, "memory", message)


def disk() -> Iterator[Finding]:
    """Check the folder for runs and the folder for temporary files."""
    runs = Path("work_dirs") if Path("work_dirs").is_dir() else Path()
    yield from _space("disk", runs, "or name another folder: --work-dir FOLDER")
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError as error:  # no folder is writable
        yield Finding(ERROR, "temporary", str(error), "export TMPDIR=FOLDER")
        return
    if len(str(temporary)) > LONGEST_TEMPORARY:
        yield Finding(
            ERROR,
            "temporary",
            f"the path {temporary} is too long for data-loader workers' sockets",
            remedies.TEMPORARY,
        )
    if temporary.stat().st_dev != runs.stat().st_dev:
        # Temporary files are small.
        yield from _space("temporary", temporary, "or export TMPDIR=FOLDER", GB / 10)


def _space(
    name: str, folder: Path, alternative: str, needed: float = DISK
) -> Iterator[Finding]:
    """Check that a folder is writable and has ``needed`` bytes of free space.

    Args:
        name: name of the finding.
        folder: the folder.
        alternative: what to do instead of freeing space, for the remedy.
        needed: bytes.
    """
    folder = folder.absolute()
    try:
        with tempfile.TemporaryFile(dir=str(folder)) as file:
            file.write(bytes(10**6))  # fails on an almost full disk
    except OSError as error:
        message = f"cannot write into {folder}: {error.strerror}"
        remedy = f"run in a writable folder on a disk with free space, {alternative}"
        yield Finding(ERROR, name, message, remedy)
        return
    free = shutil.disk_usage(str(folder)).free
    message = f"{free / GB:.1f} GB free in {folder}"
    if free >= needed:
        yield Finding(OK, name, message)
        return
    remedy = f"free {needed / GB:.1f} GB, {alternative}"
    if name == "disk":
        remedy += (
            "\n(a checkpoint of Cascade Mask R-CNN with ConvNeXt-T and its optimizer's "
            "state is 1 GB; three are kept)"
        )
    yield Finding(WARNING, name, message, remedy)


def shared_memory() -> Iterator[Finding]:
    """Check that enough of /dev/shm is free for data-loader workers."""
    folder = Path("/dev/shm")
    if not folder.is_dir():  # not Linux
        return
    usage = shutil.disk_usage(str(folder))
    message = f"{usage.free / GB:.2f} of {usage.total / GB:.2f} GB free in {folder}"
    if usage.free < SHARED_MEMORY:
        yield Finding(WARNING, "shared memory", message, remedies.SHARED_MEMORY)
    else:
        yield Finding(OK, "shared memory", message)


def open_files() -> Iterator[Finding]:
    """Check how many files a process may open."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        yield Finding(OK, "open files", "no limit")
    elif limit < OPEN_FILES:
        yield Finding(WARNING, "open files", f"at most {limit}", "ulimit -n 4096")
    else:
        yield Finding(OK, "open files", f"at most {limit}")
