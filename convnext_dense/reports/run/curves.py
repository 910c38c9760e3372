"""What a run has logged: mmengine's scalars, over all its starts."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_NOT_METRICS = {"step", "time", "data_time", "memory"}


class Session(NamedTuple):
    """One start of a run: its time stamp, first and last logged iteration."""

    name: str
    first: int
    last: int


class Validation(NamedTuple):
    """When it was, and what it found; ``epoch`` is None in a run by iterations."""

    iteration: int
    epoch: int | None
    metrics: dict[str, float]


class Curves(NamedTuple):
    """
    Args:
        train: the logged iterations in order, each with ``iter`` and mmengine's
            names: ``loss``, ``lr``, ``time`` (seconds a step), ``data_time``, ...
        validations: in order.
        sessions: more than one after a resume.
        unreadable: how many lines were left out, such as one cut by a kill.
    """

    train: list[dict]
    validations: list[Validation]
    sessions: list[Session]
    unreadable: int


def read(work_dir: str | os.PathLike) -> Curves:
    """Join ``work_dir/TIMESTAMP/vis_data/scalars.json``.

    A later start replaces what earlier ones logged from its first iteration on:
    after a resume, or a start from nothing, that was not the way to the result.
    """
    train, validations, sessions, unreadable = [], [], [], 0
    for file in sorted(Path(work_dir).glob("*/vis_data/scalars.json")):
        rows = list(_rows(file))
        unreadable += rows.count(None)
        steps, found = _split([row for row in rows if row])
        if not steps:
            continue
        first, last = steps[0]["iter"], steps[-1]["iter"]
        train = [row for row in train if row["iter"] < first] + steps
        validations = [v for v in validations if v.iteration < first] + found
        sessions = [s for s in sessions if s.first < first]
        sessions.append(Session(file.parts[-3], first, last))
    return Curves(train, validations, sessions, unreadable)


def _rows(file: Path) -> Iterator[dict | None]:
    """The lines of a log, None for one that is not what mmengine writes."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            whole = isinstance(row, dict) and isinstance(row.get("step"), int)
            yield row if whole else None


def _split(rows: list[dict]) -> tuple[list[dict], list[Validation]]:
    train, validations = [], []
    for row in rows:
        if "iter" in row:
            train.append(row)
            continue
        metrics = {
            name: value
            for name, value in row.items()
            if name not in _NOT_METRICS and isinstance(value, int | float)
        }
        if not metrics or not train:
            continue
        # mmengine logs an epoch, an iteration, or in a run by iterations 0,
        # depending on log_metric_by_epoch.
        now = train[-1]
        by_epoch = row["step"] == now.get("epoch")
        iteration = now["iter"] if by_epoch else max(row["step"], now["iter"])
        validations.append(
            Validation(iteration, row["step"] if by_epoch else None, metrics)
        )
    return train, validations


def main_metric(validations: list[Validation], save_best: str | None) -> str | None:
    """The metric by which a run is judged: the config's choice, or the toolbox's."""
    names = list(validations[-1].metrics) if validations else []
    usual = [name for name in names if name.endswith(("mIoU", "mAP"))]
    chosen = [name for name in names if name == save_best]
    return next(iter([*chosen, *usual, *names]), None)
