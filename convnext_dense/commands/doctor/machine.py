"""The machine, as the standard library sees it."""

from __future__ import annotations

import os
import platform as system
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import remedies
from .result import INFO, OK, TROUBLE, WARNING, Finding

PYTHONS = ((3, 10), (3, 13))  # the first and the last that are tested
GB = 1e9
# What training ConvNeXt-T's Cascade Mask R-CNN leaves: 86 M parameters, each with
# AdamW's two moments, are 1 GB a checkpoint; three are kept while the next is written.
DISK = 5 * GB
MEMORY = 4 * GB  # twice what the doctor's own small step takes
SHARED_MEMORY = 1 * GB  # some workers' batches; Docker's default is 64 MB
OPEN_FILES = 1024  # a worker's every tensor on its way is one
# A data-loader worker has a socket in the folder for temporary files, and a socket's
# path at most 103 characters (macOS; Linux: 107), 43 of which are the doctor's and
# multiprocessing's. With a longer one a worker's batches never arrive.
LONGEST = 60
# What decides which packages, libraries and GPUs are found.
VARIABLES = (
    *("PYTHONPATH", "PYTHONHOME"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("CUDA_HOME", "CUDA_VISIBLE_DEVICES"),
)


def python() -> Iterator[Finding]:
    found = f"{system.python_version()}, {sys.executable}"
    (first, last), version = PYTHONS, tuple(sys.version_info[:2])
    tested = f"{first[0]}.{first[1]} to {last[0]}.{last[1]}"
    remedy = f"convnext_dense is for Python {tested}: "
    if version < first:
        yield Finding(TROUBLE, "Python", found, remedy + remedies.FRESH)
    elif version > last:
        remedy += "should a package fail to install or import, take one of those"
        yield Finding(WARNING, "Python", found, remedy)
    else:
        yield Finding(OK, "Python", found)


def platform() -> Iterator[Finding]:
    try:
        cores = len(os.sched_getaffinity(0))  # Linux: those this process may use
    except AttributeError:
        cores = os.cpu_count()
    yield Finding(INFO, "platform", f"{system.platform()}, {cores} CPU cores")
    values = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    if values:
        yield Finding(INFO, "environment", " ".join(values))


def memory() -> Iterator[Finding]:
    free = _free_memory()
    if free is None:
        yield Finding(INFO, "memory", "this system does not say")
        return
    found = f"{free / GB:.1f} GB free"
    if free < MEMORY:
        yield Finding(WARNING, "memory", found, remedies.MEMORY)
    else:
        yield Finding(OK, "memory", found)


def _free_memory() -> int | None:
    """Bytes that a new program can take; a container's limit counts."""
    free = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024 * int(line.split()[1]))
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            free.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # not Linux, or not in a container of cgroup 2
    return min(free) if free else None


def disk() -> Iterator[Finding]:
    runs = Path("work_dirs") if Path("work_dirs").is_dir() else Path()
    yield from _space("disk", runs, "or name another folder: --work-dir FOLDER")
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError as error:  # no folder for it can be written to
        yield Finding(TROUBLE, "temporary", str(error), "export TMPDIR=FOLDER")
        return
    if len(str(temporary)) > LONGEST:
        yield Finding(
            TROUBLE,
            "temporary",
            f"{temporary} is too long a path for data-loader workers' sockets",
            remedies.TEMPORARY,
        )
    if temporary.stat().st_dev != runs.stat().st_dev:
        # Small files only.
        yield from _space("temporary", temporary, "or export TMPDIR=FOLDER", GB / 10)


def _space(what: str, folder: Path, way_out: str, wanted: float = DISK):
    folder = folder.absolute()
    try:
        with tempfile.TemporaryFile(dir=str(folder)) as file:
            file.write(bytes(10**6))  # an almost full disk takes less
    except OSError as error:
        found = f"{folder} cannot be written to: {error.strerror}"
        remedy = f"go to a folder of yours on a disk with space, {way_out}"
        yield Finding(TROUBLE, what, found, remedy)
        return
    free = shutil.disk_usage(str(folder)).free
    found = f"{free / GB:.1f} GB free in {folder}"
    if free >= wanted:
        yield Finding(OK, what, found)
        return
    remedy = f"free {wanted / GB:.1f} GB, {way_out}"
    if what == "disk":
        remedy += (
            "\n(a checkpoint of ConvNeXt-T with its optimizer's state is 1 GB; three "
            "are kept)"
        )
    yield Finding(WARNING, what, found, remedy)


def shared_memory() -> Iterator[Finding]:
    folder = Path("/dev/shm")
    if not folder.is_dir():  # not Linux
        return
    usage = shutil.disk_usage(str(folder))
    found = f"{usage.free / GB:.2f} of {usage.total / GB:.2f} GB free in {folder}"
    if usage.free < SHARED_MEMORY:
        yield Finding(WARNING, "shared memory", found, remedies.SHARED_MEMORY)
    else:
        yield Finding(OK, "shared memory", found)


def open_files() -> Iterator[Finding]:
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
