"""Disks, permissions, and what else a machine has."""

from .case import DET, Case, with_options, write


def into(folder):
    return lambda t: [DET, "--work-dir", folder(t)]


NAME = "a" * 70  # of a folder: sockets in it have too long a name

CASES = [
    Case(
        *("train", "a work dir that is a file"),
        into(lambda t: write(t / "run", "mine")),
        "the work dir .../run: .../run is no folder; name another place",
    ),
    Case(
        *("train", "a work dir below a file"),
        into(lambda t: write(t / "run", "mine") / "a/b"),
        "the work dir .../run/a/b: .../run is no folder; name another place",
    ),
    Case(
        *("train", "a work dir that cannot be made"),
        into(lambda t: "/proc/run"),
        "the work dir /proc/run: nothing can be written into /proc (",
    ),
    Case(
        *("train", "a work dir into which nothing can be written"),
        into(lambda t: "/proc"),
        "the work dir /proc: nothing can be written into /proc (",
    ),
    Case(
        *("train", "the built-in data set where it cannot be drawn"),
        with_options("data_root=/proc/shapes"),
        "the built-in data set in /proc/shapes: nothing can be written into /proc (",
    ),
    Case(
        *("predict", "--out that cannot be made"),
        lambda t: ["x.pth", t / "data", "--out", "/proc/out"],
        "--out /proc/out: nothing can be written into /proc (",
    ),
    Case(
        *("train", "TMPDIR too long for the sockets of data-loader workers"),
        with_options("train_dataloader.num_workers=1"),
        "has too long a name for data-loader workers: set TMPDIR=/tmp",
        leaves=(NAME,),
        environment=lambda t: dict(TMPDIR=str(t / NAME)),
    ),
]
