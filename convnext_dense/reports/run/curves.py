"""Reads what a run has logged: mmengine's scalars, from all its starts."""

import io
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convnext_dense.errors import InputError
from convnext_dense.utils.files import open_regular
from convnext_dense.utils.json_files import parse_json

MOST_STEPS = 10**9
LARGEST = 1e38  # of a logged number; fp32 ends at 3.4e38
_NOT_METRICS = {"step", "time", "data_time", "memory"}
# mmdet's metrics with classwise=True: 'coco/cat_precision'. They are of the boxes or,
# if both are measured, of the masks.
_OF_A_CLASS = re.compile(r"(?:[^/]*/)?(.+)_precision", re.DOTALL)
_MEASURES = {"bbox": "box AP", "segm": "mask AP"}


class Session(NamedTuple):
    """One start of a run.

    Attributes:
        name: mmengine's time stamp.
        first, last: the first and the last logged iteration.
    """

    name: str
    first: int
    last: int


class Validation(NamedTuple):
    """The metrics of one validation; ``epoch`` is None in a run by iterations."""

    iteration: int
    epoch: int | None
    metrics: dict[str, float]


class Curves(NamedTuple):
    """All that a run has logged.

    Attributes:
        train: the logged iterations in order, each with ``iter`` and mmengine's
            names: ``loss``, ``lr``, ``time`` (seconds a step), ``data_time``, ...
        validations: in order.
        sessions: more than one after a resume.
        unreadable: the number of lines left out, such as one cut short by a kill.
    """

    train: list[dict]
    validations: list[Validation]
    sessions: list[Session]
    unreadable: int


def read(work_dir: str | os.PathLike) -> Curves:
    """Join the files ``work_dir/TIMESTAMP/vis_data/scalars.json``.

    A later start replaces what earlier ones logged from its first iteration on:
    after a resume, or a new start, those iterations did not lead to the result.

    Raises:
        InputError: such a file is a pipe or a device, or cannot be read.
    """
    train: list[dict] = []
    validations: list[Validation] = []
    sessions: list[Session] = []
    unreadable = 0
    for file in sorted(Path(work_dir).glob("*/vis_data/scalars.json")):
        rows = list(_rows(file))
        unreadable += rows.count(None)
        steps, new_validations = _split([row for row in rows if row])
        if not steps and not new_validations:
            continue
        logged_at = [row["iter"] for row in steps]
        logged_at += [v.iteration for v in new_validations]
        first, last = min(logged_at), max(logged_at)
        train = [row for row in train if row["iter"] < first] + steps
        validations = [v for v in validations if v.iteration < first]
        validations += new_validations
        sessions = [s for s in sessions if s.first < first]
        sessions.append(Session(file.parts[-3], first, last))
    return Curves(train, validations, sessions, unreadable)


def _rows(file: Path) -> Iterator[dict | None]:
    """The lines of a log; None for a line that mmengine cannot have written."""
    with open_regular(file) as content:
        for line in io.TextIOWrapper(content, encoding="utf-8", errors="replace"):
            try:
                row = parse_json(line, str(file))
            except InputError:
                row = None
            yield _numbers(row) if isinstance(row, dict) else None


def _numbers(row: dict) -> dict[str, Any] | None:
    """The numbers in a line; None if a step, iteration or epoch is none."""
    counts = [row.get(name, 0) for name in ("step", "iter", "epoch")]
    if "step" not in row or not all(
        type(count) is int and abs(count) <= MOST_STEPS for count in counts
    ):
        return None
    return {
        name: v if name in ("step", "iter", "epoch") else _value(v)
        for name, v in row.items()
        if isinstance(v, int | float)
    }


def _value(number: float) -> float:
    """A logged number; infinity for one that no fp32 computation has."""
    if abs(number) > LARGEST:
        return math.copysign(math.inf, number)
    return float(number)


def _split(rows: list[dict]) -> tuple[list[dict], list[Validation]]:
    """Divide the lines of a log into training iterations and validations."""
    train: list[dict] = []
    validations: list[Validation] = []
    for row in rows:
        if "iter" in row:
            train.append(row)
            continue
        metrics = {
            name: value for name, value in row.items() if name not in _NOT_METRICS
        }
        # A validation before the first step is not of a training.
        if not metrics or not (train or row["step"] > 0):
            continue
        # The step that mmengine logs is an epoch or an iteration, or 0 in a run by
        # iterations, depending on log_metric_by_epoch.
        latest = train[-1] if train else dict(iter=0)
        by_epoch = row["step"] == latest.get("epoch")
        iteration = latest["iter"] if by_epoch else max(row["step"], latest["iter"])
        validations.append(
            Validation(iteration, row["step"] if by_epoch else None, metrics)
        )
    return train, validations


class ClassValues(NamedTuple):
    """The metric of each class that mmdet logs with ``classwise=True``.

    Attributes:
        measure: what it is, such as 'mask AP'.
        names: the classes.
        values: (validations, classes), NaN for classes without objects.
    """

    measure: str
    names: list[str]
    values: np.ndarray

    def changes(self) -> np.ndarray:
        """The last value of each class less its first one, (classes,)."""
        return self.values[-1] - self.values[0]

    def changed(self) -> list[int]:
        """The classes by how much they changed, most first; none that is NaN."""
        changes = np.abs(self.changes())
        order = np.argsort(-changes, kind="stable").tolist()
        return [index for index in order if changes[index] > 0]

    def worst(self) -> list[int]:
        """The classes by their last value, lowest first; none that is NaN."""
        order = np.argsort(self.values[-1], kind="stable").tolist()
        return [index for index in order if np.isfinite(self.values[-1, index])]


def without_classes(
    validations: list[Validation],
) -> tuple[list[Validation], ClassValues | None]:
    """Divide the metrics of a run into those of all classes and those of each class."""
    rest, by_class = [], []
    for validation in validations:
        metrics, values = {}, {}
        for name, value in validation.metrics.items():
            match = _OF_A_CLASS.fullmatch(name)
            if match:
                values[match[1]] = value
            else:
                metrics[name] = value
        rest.append(validation._replace(metrics=metrics))
        by_class.append(values)
    names = list(dict.fromkeys(name for values in by_class for name in values))
    if not names or not any(v.metrics for v in rest):
        return validations, None
    table = [[values.get(name, np.nan) for name in names] for values in by_class]
    array = np.array(table, float)
    array[~np.isfinite(array)] = np.nan
    logged = [name for v in rest for name in v.metrics if "_mAP" in name]
    group = logged[-1].split("/")[-1].split("_")[0] if logged else ""
    return rest, ClassValues(_MEASURES.get(group, "AP"), names, array)


def main_metric(validations: list[Validation], save_best: str | None) -> str | None:
    """The metric by which a run is judged; None if there are no validations.

    It is ``save_best`` of the config, or mAP or mIoU, or the first one logged.
    """
    names = list(validations[-1].metrics) if validations else []
    usual = [name for name in names if name.endswith(("mIoU", "mAP"))]
    chosen = [name for name in names if name == save_best]
    return next(iter([*chosen, *usual, *names]), None)
