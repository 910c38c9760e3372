"""Finds the checkpoint in a work dir, for commands that are given the work dir."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mmengine.logging import print_log

from convnext_dense.checkpoints.reading import read
from convnext_dense.checkpoints.sources import WEIGHTS
from convnext_dense.errors import InputError


def checkpoint_of(source: str) -> str:
    """The checkpoint that a user means: of a work dir, its best or newest.

    Args:
        source: a checkpoint, as for ``checkpoints.locate``, or the work dir of a run.

    Returns:
        The path of a checkpoint in the work dir. Anything else comes back as it is.

    Raises:
        InputError: the name is empty; or the work dir has checkpoints, and all are
            damaged.
    """
    if not source:  # of a shell's variable that is not set; Path would take this folder
        raise InputError("the name of the checkpoint is empty")
    folder = Path(source)
    names = [folder / name for name in (*WEIGHTS, ".metadata")]
    if not os.path.isdir(folder) or any(map(os.path.exists, names)):
        return source
    file = best_or_newest(folder)
    if file is None:
        return source
    which = "best" if file.name.startswith("best_") else "newest"
    print_log(f"{source} is a work dir; its {which} checkpoint is {file}", "current")
    return str(file)


def best_or_newest(work_dir: Path) -> Path | None:
    """The best checkpoint of a run, or else the newest; None if it has none.

    Damaged checkpoints are passed over, and the log names them.

    Raises:
        InputError: all are damaged.
    """
    damaged = []
    for file in _in_order(work_dir):
        try:
            read(file, "meta")
            return file
        except InputError as error:
            damaged.append(file.name)
            print_log(f"skipped: {error}", "current", logging.WARNING)
    if damaged:
        raise InputError(
            f"no checkpoint in {work_dir} is complete; damaged: {', '.join(damaged)}"
        )
    return None


def _in_order(work_dir: Path) -> Iterator[Path]:
    """The checkpoint files of a work dir: the best first, then from new to old."""

    def newest_first(pattern: str) -> list[Path]:
        paths = [path for path in work_dir.glob(pattern) if path.is_file()]
        return sorted(paths, key=lambda path: -path.stat().st_mtime_ns)

    yield from newest_first("best_*.pth")
    for file in newest_first("[!.]*.pth"):
        if not file.name.startswith("best_"):
            yield file
