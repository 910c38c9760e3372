"""Paths that cannot be written to, and other limits of a machine."""

from collections.abc import Callable
from pathlib import Path

from convnext_dense.engine import work_dir_lock

from .case import DET, Case, Maker, with_options, write


def into(folder: Callable[[Path], object]) -> Maker:
    """Train with a work dir that ``folder`` makes below the case's folder."""
    return lambda t: [DET, "--work-dir", folder(t)]


_LOCKS: list = []


def use(work_dir: Path) -> Path:
    """Lock a work dir as a training does, until the test's process ends."""
    lock = work_dir_lock.locked(work_dir)
    lock.__enter__()
    _LOCKS.append(lock)  # without a reference it would end
    return work_dir


# The path of a socket in a folder of this name is too long.
NAME = "a" * 70

CASES = [
    Case(
        *("train", "a work dir that another training uses"),
        into(lambda t: use(t / "run")),
        "another training uses the work dir .../run: process ... on ... since ... Wait "
        "for it, stop it, or name another --work-dir",
    ),
    Case(
        *("train", "a user's own file with the name of the work dir's lock"),
        into(lambda t: write(t / "run" / work_dir_lock.FILE, "mine").parent),
        ".../run/.convnext_dense.lock is not the file with which a training keeps "
        "others out of its work dir: rename it, or name another --work-dir",
    ),
    Case(
        *("train", "a work dir that is a file"),
        into(lambda t: write(t / "run", "mine")),
        "the work dir .../run: .../run is a file, not a folder: choose another place",
    ),
    Case(
        *("train", "a work dir below a file"),
        into(lambda t: write(t / "run", "mine") / "a/b"),
        "the work dir .../run/a/b: .../run is a file, not a folder: choose another "
        "place",
    ),
    Case(
        *("train", "a work dir that cannot be created"),
        into(lambda t: "/proc/run"),
        "the work dir /proc/run: nothing can be written into /proc (",
    ),
    Case(
        *("train", "a work dir without permission to write"),
        into(lambda t: "/proc"),
        "the work dir /proc: nothing can be written into /proc (",
    ),
    Case(
        *("train", "the built-in data set in a folder that cannot be created"),
        with_options("data_root=/proc/shapes"),
        "the built-in data set in /proc/shapes: nothing can be written into /proc (",
    ),
    Case(
        *("predict", "--out that cannot be created"),
        lambda t: ["x.pth", t / "data", "--out", "/proc/out"],
        "--out /proc/out: nothing can be written into /proc (",
    ),
    Case(
        *("train", "a TMPDIR that is too long for the sockets of data-loader workers"),
        with_options("train_dataloader.num_workers=1"),
        "has too long a name for data-loader workers: set TMPDIR=/tmp",
        leaves=(NAME,),
        environment=lambda t: dict(TMPDIR=str(t / NAME)),
    ),
]
