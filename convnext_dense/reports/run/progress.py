"""How far a run came, and whether it ended, was stopped early or was interrupted.

The logged iterations do not say it: mmengine logs every 50th. ``RunReportHook`` writes
a line into the log when training ends. Without that line, validations and the newest
checkpoint say how far the run came at least.
"""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, Runner

from convnext_dense.patches.checkpoint_finding import last_saved
from convnext_dense.utils import files

from .curves import Curves, Session

FINISHED, STOPPED, UNKNOWN = "finished", "stopped early", "unknown"
_LINE = re.compile(
    r"training (ended|was stopped early,) after (\d+) of (\d+) (epochs|iterations)"
)
_CHECKPOINT = re.compile(r"(epoch|iter)_(\d+)(\.pth)?")
_PLAN = re.compile(
    r"^train_cfg = dict\(.{0,500}?\bmax_(epochs|iters)=(\d{1,12})\b", re.M | re.S
)
_TAIL = 200_000  # bytes of a log's end, which has the line, and of a config


class Progress(NamedTuple):
    """How far a run came.

    Attributes:
        unit: 'epochs' or 'iterations'.
        done: how many are complete; if ``end`` is ``UNKNOWN``, at least so many.
        planned: how many the config asks for; None if it does not say.
        end: ``FINISHED``, ``STOPPED`` or ``UNKNOWN``.
    """

    unit: str
    done: int
    planned: int | None
    end: str


def last_line(runner: Runner) -> str:
    """The line for the log of a training that has ended."""
    loop: Any = runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    done, planned = (
        (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    )
    how = "ended after" if done >= planned else "was stopped early, after"
    return (
        f"training {how} {done} of {planned} {'epochs' if by_epoch else 'iterations'}"
    )


def read(work_dir: str | os.PathLike, cfg: Config, logged: Curves) -> Progress | None:
    """How far the run came; None if there is no sign of a training.

    Args:
        work_dir: with the logs and checkpoints of the run.
        cfg: the config of the newest start.
        logged: what was logged in ``work_dir``.

    Raises:
        InputError: a log or a ``last_checkpoint`` is a pipe or a device.
    """
    folder = Path(work_dir)
    newest = logged.sessions[-1].name if logged.sessions else ""
    # The log of a test or of a validation has no such line.
    for log in sorted(folder.glob("*/*.log"), reverse=True):
        if log.parent.name < newest:
            break
        ends = _LINE.findall(_tail(log))
        if ends:
            how, done, planned, unit = ends[-1]
            end = FINISHED if how == "ended" else STOPPED
            return Progress(unit, int(done), int(planned), end)
    return _at_least(folder, cfg, logged)


def _tail(file: Path) -> str:
    with files.open_regular(file) as content:
        content.seek(max(0, file.stat().st_size - _TAIL))
        return content.read(_TAIL).decode(errors="replace")


def _at_least(folder: Path, cfg: Config, logged: Curves) -> Progress | None:
    """How far the run came by its logs and its newest checkpoint."""
    plan = cfg.get("train_cfg") or {}
    last = logged.train[-1] if logged.train else {}
    by_epoch = "epoch" in last
    saved = _saved(folder, logged.sessions, "epoch" if by_epoch else "iter")
    if by_epoch:
        # A logged iteration is in its epoch, which may not be complete.
        epochs = [v.epoch for v in logged.validations if v.epoch is not None]
        done = max([*epochs, saved, last["epoch"] - 1])
    else:
        iterations = [v.iteration for v in logged.validations]
        done = max([*iterations, saved, last.get("iter", 0)])
    if not done and not last:
        return None
    unit = "epochs" if by_epoch else "iterations"
    planned = plan.get("max_epochs" if by_epoch else "max_iters")
    end = FINISHED if planned and done >= planned else UNKNOWN
    return Progress(unit, done, planned, end)


def _saved(folder: Path, sessions: Sequence[Session], unit: str) -> int:
    """The epoch or iteration of the newest checkpoint of the newest start, or 0."""
    checkpoint = last_saved(folder)
    match = _CHECKPOINT.fullmatch(checkpoint.name) if checkpoint else None
    if not match or match[1] != unit:
        return 0
    try:
        started = time.mktime(time.strptime(sessions[-1].name, "%Y%m%d_%H%M%S"))
    except (IndexError, ValueError, OverflowError):
        started = 0.0
    written = (folder / "last_checkpoint").stat().st_mtime
    return int(match[2]) if written >= started else 0


def lengths(work_dir: str | os.PathLike, sessions: Sequence[Session]) -> list[str]:
    """The planned length of each start, such as '12 epochs'; '' if it is unknown.

    mmengine writes the config of each start beside its log. It is not executed.
    """
    return [
        _length(Path(work_dir, session.name, "vis_data/config.py"))
        for session in sessions
    ]


def _length(file: Path) -> str:
    if not file.is_file():
        return ""
    with files.open_regular(file) as content:
        match = _PLAN.search(content.read(_TAIL).decode(errors="replace"))
    if not match:
        return ""
    unit = "epoch" if match[1] == "epochs" else "iteration"
    return f"{int(match[2]):,} {unit}{'s' * (int(match[2]) != 1)}"


def sentences(
    progress: Progress, lengths: Sequence[str], cfg: Config, logged: Curves
) -> list[str]:
    """What readers of the page must know of how the run ended.

    Args:
        progress: of the run.
        lengths: of its starts.
        cfg: of its newest start.
        logged: by the run.
    """
    lines = []
    planned = f" of {progress.planned:,}" if progress.planned else ""
    done = f"{progress.done:,}{planned} {progress.unit}"
    if progress.end == STOPPED:
        hooks = [h for h in cfg.get("custom_hooks") or () if isinstance(h, dict)]
        early = [h for h in hooks if h.get("type") == "EarlyStoppingHook"]
        by = f" EarlyStoppingHook watched {early[0].get('monitor')}." if early else ""
        lines.append(f"Training was stopped early, after {done}.{by}")
    elif progress.end == UNKNOWN:
        last = ""
        if logged.train:
            last = f"; the last logged iteration is {logged.train[-1]['iter']:,}"
        lines.append(
            "Training was interrupted or is still running: the work dir shows "
            f"{done}{last}."
        )
    changes = [length for length in lengths if length]
    changes = [c for i, c in enumerate(changes) if i == 0 or c != changes[i - 1]]
    if len(changes) > 1:
        lines.append(
            f"The planned length was changed when the run was resumed: "
            f"{', then '.join(changes)}."
        )
    return lines
