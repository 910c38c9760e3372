"""Make ``resume`` take the newest complete checkpoint of a run.

mmengine takes whatever the file ``last_checkpoint`` names, also a damaged checkpoint,
one that is older than the last one written, or one that lies outside the run's folder.
"""

import functools
import logging
import os
import re
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

from mmengine import runner as mmengine_runners
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner, _flexible_runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import runner as mmengine_runner

from convnext_dense.checkpoints.reading import read
from convnext_dense.errors import InputError
from convnext_dense.utils import files
from convnext_dense.utils.distributed import on_main
from convnext_dense.utils.text import few

MOST_TEXT = 10_000  # bytes of last_checkpoint, which holds a path
# The folders beside the work dir into which the run's CheckpointHooks write.
_out_dirs: ContextVar[tuple[Path, ...]] = ContextVar("out_dirs", default=())


def resume_from_newest_complete() -> None:
    """Replace mmengine's search for the checkpoint from which a run resumes."""
    for module in (
        mmengine_checkpoint,
        mmengine_runners,
        mmengine_runner,
        _flexible_runner,
    ):
        module.find_latest_checkpoint = find_latest_checkpoint
    for runner in (Runner, _flexible_runner.FlexibleRunner):
        if not hasattr(runner.load_or_resume, "__wrapped__"):
            runner.load_or_resume = _knowing_out_dirs(runner.load_or_resume)


def _knowing_out_dirs(plain: Callable) -> Callable:
    """A runner's ``load_or_resume`` with ``_out_dirs`` set."""

    @functools.wraps(plain)
    def load_or_resume(self: Runner) -> None:
        name = Path(self.work_dir).name
        hooks = [hook for hook in self.hooks if isinstance(hook, CheckpointHook)]
        folders = (Path(hook.out_dir, name) for hook in hooks if hook.out_dir)
        token = _out_dirs.set(tuple(folders))
        try:
            plain(self)
        finally:
            _out_dirs.reset(token)

    return load_or_resume


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
    last = last_saved(folder, _out_dirs.get())
    damaged: list[str] = []
    if last and last.is_dir():
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
    names = (file for file in folder.glob("[!.]*.pth") if file != last)
    others = [file for file in names if not file.is_dir() and _is_own(file, folder)]
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


def last_saved(folder: Path, out_dirs: tuple[Path, ...] = ()) -> Path | None:
    """The checkpoint that ``last_checkpoint`` names, also after the folder was moved.

    The log says so if it names something outside the run's folders.

    Args:
        folder: the work dir.
        out_dirs: other folders of the run.

    Returns:
        A regular file, or a folder of shards, which mmengine's strategies read; it
        lies in the work dir or in one of ``out_dirs``. None if there is no such file.
    """
    place = folder / "last_checkpoint"
    try:
        if files.require_regular(place).st_size > MOST_TEXT:
            raise InputError(f"{place} holds more than a path")
        recorded = files.read_text(place).strip()
    except InputError as error:
        if os.path.lexists(place):
            print_log(f"skipped: {error}", "current", logging.WARNING)
        return None
    name = re.split(r"[/\\]", recorded)[-1]
    if not name or name in (".", "..") or "\0" in recorded:
        return None
    paths = [parent / name for parent in (folder, *out_dirs)]
    own = [path for path in paths if path.exists() and _is_own(path, path.parent)]
    outside = Path(recorded)
    if os.path.lexists(outside) and not any(
        outside.parent.resolve() == path.parent.resolve() for path in paths
    ):
        print_log(
            f"{place} names {few([recorded])}, which lies outside the run's folder: "
            + (f"{own[0]} is used" if own else "it is left out"),
            "current",
            logging.WARNING,
        )
    return own[0] if own else None


def _is_own(path: Path, folder: Path) -> bool:
    """Whether a path is a checkpoint in the folder of its run.

    The log says why not. A link into another folder is no checkpoint of the run: the
    user can name its target with --resume.
    """
    try:
        real = path.resolve()
        if real.parent != folder.resolve():
            raise InputError(f"{path} is a link to {real}, outside the run's folder")
        if real.is_dir() and not any(real.glob("*.pt*")):
            raise InputError(f"{path} is a folder without shards")
        if not real.is_dir():
            files.require_regular(path)
    except (InputError, OSError, RuntimeError) as error:  # links in a circle
        print_log(f"skipped: {error}", "current", logging.WARNING)
        return False
    return True


def _iteration(file: Path) -> int | None:
    """The iteration a run had reached in ``file``; None if it holds weights alone.

    Raises:
        InputError: the file is damaged.
    """
    content = read(file, "meta")
    if not isinstance(content, dict) or not {"optimizer", "meta"} <= content.keys():
        return None
    meta = content["meta"]
    iteration = meta.get("iter") if isinstance(meta, dict) else None
    if not isinstance(iteration, int):
        raise InputError(f"{file} is damaged: it does not say how far the run was")
    return iteration
