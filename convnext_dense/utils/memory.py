"""How much memory is free, and a limit on it.

The doctor uses this module, also with a Python that is too old.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_memory() -> int | None:
    """Bytes that this process can still use; None if unknown.

    A container's limit counts, and so does the shell's ``ulimit -v``.
    """
    free = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024 * int(line.split()[1]))
        import resource  # not on Windows

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            free.append(limit - _address_space())
        group = Path("/sys/fs/cgroup")
        group_limit = (group / "memory.max").read_text().strip()
        if group_limit != "max":
            used = int((group / "memory.current").read_text())
            free.append(int(group_limit) - used)
    except (ImportError, OSError, ValueError):
        pass  # not Linux, or no container with cgroup v2
    return max(0, min(free)) if free else None


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Let allocations fail that take more than ``size`` bytes in addition.

    For libraries that allocate what a file's header states. It has no effect where
    Linux's ``/proc`` is missing.
    """
    try:
        import resource

        limits = resource.getrlimit(resource.RLIMIT_AS)
        lower = _address_space() + size
        if limits[0] != resource.RLIM_INFINITY:
            lower = min(lower, limits[0])
        resource.setrlimit(resource.RLIMIT_AS, (lower, limits[1]))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _address_space() -> int:
    """The size of this process in bytes, which ``ulimit -v`` limits."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
