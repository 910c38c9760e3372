"""Make ``resume`` take the newest complete checkpoint of a run.

mmengine takes whatever the file ``last_checkpoint`` names, also a damaged checkpoint
or one that is older than the last one written.
"""

import logging
from pathlib import Path

from mmengine import runner as mmengine_runners
from mmengine.logging import print_log
from mmengine.runner import _flexible_runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import runner as mmengine_runner

from convnext_dense.checkpoints.reading import read
from convnext_dense.errors import InputError
from convnext_dense.utils import files
from convnext_dense.utils.distributed import on_main


def resume_from_newest_complete() -> None:
    """Replace mmengine's search for the checkpoint from which a run resumes."""
    for module in (
        mmengine_checkpoint,
        mmengine_runners,
        mmengine_runner,
        _flexible_runner,
    ):
        module.find_latest_checkpoint = find_latest_checkpoint


def find_latest_checkpoint(path: str) -> str | None:
    """The newest complete checkpoint in a run's folder, the same for every process.

    The log names each damaged checkpoint, with the reason.

    Args:
        path: the work dir.

    Returns:
        its path; None if the folder has no checkpoint of a run.

    Raises:
        InputError: there are checkpoints, and all are damaged.
    """
    return on_main(lambda: _find(Path(path)))


def _find(folder: Path) -> str | None:
    last = last_saved(folder)
    damaged: list[str] = []
    if last and last.is_dir():  # a folder of shards, which mmengine's strategies read
        return str(last)

    def iteration(file: Path) -> int | None:
        try:
            return _iteration(file)
        except InputError as error:
            damaged.append(file.name)
            print_log(f"skipped: {error}", "current", logging.WARNING)
            return None

    reached = iteration(last) if last else None
    newest = last if reached is not None else None
    others = [file for file in folder.glob("[!.]*.pth") if file != last]
    for file in sorted(others, key=_time, reverse=True):
        if newest and _time(file) <= _time(newest):
            break
        # The run may have been killed before it named this file in last_checkpoint.
        its_iteration = iteration(file)
        if its_iteration is not None and (reached is None or its_iteration > reached):
            newest, reached = file, its_iteration
    if newest is None and damaged:
        raise InputError(
            f"--resume: no checkpoint in {folder} is whole; damaged: "
            + ", ".join(damaged)
            + ". To start again, name another --work-dir or leave --resume out"
        )
    if newest and newest != last:  # the run may end before it writes another one
        with files.whole(folder / "last_checkpoint") as partial:
            partial.write_text(str(newest))
    print_log(
        f"the run goes on from {newest}"
        if newest
        else f"nothing to resume in {folder}: the run starts",
        "current",
    )
    return str(newest) if newest else None


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns


def last_saved(folder: Path) -> Path | None:
    """The file that ``last_checkpoint`` names, also if the folder was moved since."""
    try:
        name = (folder / "last_checkpoint").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not name:
        return None
    places = Path(name), folder / Path(name).name
    return next((path for path in places if path.exists()), None)


def _iteration(file: Path) -> int | None:
    """The iteration a run had reached in ``file``; None if it holds weights alone.

    Raises:
        InputError: the file is damaged.
    """
    content = read(file, "meta")
    if not isinstance(content, dict) or not {"optimizer", "meta"} <= content.keys():
        return None
    return content["meta"]["iter"]
