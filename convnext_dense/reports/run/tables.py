"""The tables of a run's page: metrics, classes, pairs of classes, times."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np

from convnext_dense.errors import printable

from .curves import ClassValues, Curves, Validation
from .progress import Progress
from .result_figures import MOST_CLASSES, confused_pairs
from .results import ValidationResults

FEW_CLASSES = 20  # have one table; of more, the worst and the best come first
ROWS = 10  # of the tables of worst, best and changed classes
CONFUSED = 15  # pairs of classes
LONGEST_NAME, SHORT_NAME = 200, 44  # characters, in the long table and in the others
LONGEST_STEP = 1e6  # seconds; more, or NaN, is no time


def class_rows(results: ValidationResults) -> list[dict]:
    """A row for all classes, then a row for each class, the best first.

    Classes without truth come last; of equal ones, those with more truth come later.

    Returns:
        rows of ``name``, ``values`` and ``bar``, the first value as a fraction of the
        largest; None in the row of all classes.
    """
    first, truth = results.per_class[:, 0], results.per_class[:, -1]
    order = np.lexsort((truth, -np.where(np.isnan(first), -1, first)))
    top = np.nanmax(first) if np.isfinite(first).any() else 0
    rows = [
        dict(
            name=printable(results.classes[index], LONGEST_NAME),
            values=results.per_class[index].tolist(),
            bar=first[index] / top if top > 0 and np.isfinite(first[index]) else 0,
        )
        for index in order.tolist()
    ]
    means = [
        float(np.nanmean(column)) if np.isfinite(column).any() else np.nan
        for column in results.per_class.T
    ]
    means[-1] = float(results.per_class[:, -1].sum())
    return [dict(name="all classes", values=means, bar=None), *rows]


def worst_and_best(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """The worst classes, the worst first, and the best above 0; of few classes none.

    Args:
        rows: ``class_rows`` of the results.
    """
    known = [
        dict(row, name=printable(row["name"], SHORT_NAME))
        for row in rows[1:]
        if np.isfinite(row["values"][0])
    ]
    if len(rows) - 1 <= FEW_CLASSES or len(known) < 2 * ROWS:
        return [], []
    return known[::-1][:ROWS], [row for row in known[:ROWS] if row["values"][0] > 0]


def class_sentences(results: ValidationResults) -> list[str]:
    """How many classes have no truth to measure, and how many have the value 0."""
    first, count = results.per_class[:, 0], len(results.classes)
    sentences = []
    unknown, zero = int(np.isnan(first).sum()), int((first == 0).sum())
    if unknown:
        sentences.append(
            f"{unknown} of {count} classes are not in the data that was evaluated; "
            "the mean leaves them out."
        )
    if zero:
        sentences.append(f"{zero} of {count} classes have {results.columns[0]} 0.")
    return sentences


def changed(logged: ClassValues | None) -> list[dict]:
    """The classes that changed most, with their first and last value."""
    if logged is None or len(logged.values) < 2 or len(logged.names) <= FEW_CLASSES:
        return []
    changes = logged.changes()
    return [
        dict(
            name=printable(logged.names[index], SHORT_NAME),
            first=logged.values[0, index],
            last=logged.values[-1, index],
            change=changes[index],
        )
        for index in logged.changed()[:ROWS]
    ]


def confused(results: ValidationResults) -> list[dict]:
    """The pairs of classes that are confused most often.

    Empty for few classes, which the figure of the confusion has all.
    """
    count = len(results.classes)
    if count <= MOST_CLASSES:
        return []
    totals = results.matrix.sum(1)
    return [
        dict(
            truth=printable(results.classes[truth], SHORT_NAME),
            prediction=printable(results.classes[prediction], SHORT_NAME),
            count=int(results.matrix[truth, prediction]),
            share=results.matrix[truth, prediction] / totals[truth],
        )
        for truth, prediction in confused_pairs(results.matrix, count)[:CONFUSED]
    ]


def values(names_and_values: dict[str, float]) -> list[tuple[str, str]]:
    """Names and values for a table; 'no objects' for pycocotools' -1."""
    return [
        (name, "no objects" if value == -1 and "_m" in name else f"{value:.4g}")
        for name, value in names_and_values.items()
    ]


def metric_values(validation: Validation) -> list[tuple[str, str]]:
    """The metrics of a validation, for a table."""
    return values(validation.metrics)


def logged_values(train: Sequence[dict]) -> list[tuple[str, str]]:
    """What the only logged iteration has, but times, for a table."""
    left_out = ("iter", "step", "epoch", "time", "data_time", "memory", "base_lr")
    return values({n: v for n, v in train[0].items() if n not in left_out})


def timing(logged: Curves, progress: Progress | None) -> dict[str, str]:
    """Total time, time per step, share of waiting, and memory.

    mmengine logs the mean seconds of a step over the steps since the last line. Steps
    after the last line count with its mean, if it is known that they were made.
    """
    rows = [row for row in logged.train if 0 <= row.get("time", -1) < LONGEST_STEP]
    if not rows:
        return {}
    steps = np.diff([0, *(row["iter"] for row in rows)])
    if progress and progress.unit == "iterations":
        steps[-1] += max(0, progress.done - rows[-1]["iter"])
    total = float(steps @ [row["time"] for row in rows])
    waits = np.array([row.get("data_time", 0) for row in rows])
    waiting = float(steps @ np.where(np.isfinite(waits), waits, 0))
    times = {
        "in training steps": duration(total),
        "a step": f"{total / steps.sum():.3g} s",
        "waiting for data": f"{waiting / max(total, 1e-9):.0%}",
    }
    memory = max((row.get("memory", 0) for row in rows), default=0)
    if memory:  # mmengine logs MB
        text = f"{memory / 1024:.1f} GB" if memory >= 1024 else f"{memory:.0f} MB"
        times["peak GPU memory"] = text
    return times


def duration(seconds: float) -> str:
    """A time with the precision that its length needs.

    >>> duration(0.42), duration(75), duration(40000)
    ('0.42 s', '1 min 15 s', '11 h 6 min')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    left = timedelta(seconds=round(seconds))
    hours, rest = divmod(left.seconds, 3600)
    minutes, rest = divmod(rest, 60)
    units = dict(d=left.days, h=hours, min=minutes, s=rest)
    known = [f"{number} {unit}" for unit, number in units.items() if number]
    first = next(index for index, number in enumerate(units.values()) if number)
    last = list(units)[: first + 2]
    return " ".join(text for text in known if text.split()[1] in last)
