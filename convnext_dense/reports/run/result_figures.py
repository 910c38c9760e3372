"""Draws the results of one validation: confusion, and precision over recall."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .panels import FEW_LINES, band, curve, draw, legend, panel, shown

MOST_CLASSES = 20  # in the confusion matrix; of more, the most confused ones
MOST_SHOWN = 16  # of many classes
SHORT_NAME = 28  # characters, beside the matrix


def confused_pairs(matrix: np.ndarray, classes: int) -> list[tuple[int, int]]:
    """Truth and prediction of the pairs of classes that are confused, most first.

    Args:
        matrix: counts (N, N), truth by prediction.
        classes: the first so many rows and columns are classes; a background is not.
    """
    pairs = matrix[:classes, :classes].copy()
    np.fill_diagonal(pairs, 0)
    cells = np.argsort(pairs, axis=None, kind="stable")[::-1]
    cells = cells[pairs.ravel()[cells] > 0]
    return [divmod(cell, classes) for cell in cells.tolist()]


def most_confused(
    matrix: np.ndarray, names: Sequence[str], classes: int
) -> tuple[np.ndarray, list[str]]:
    """A matrix of the most confused classes, with the others in one row and column.

    Args:
        matrix, classes: as in ``confused_pairs``.
        names: the N names of its rows and columns.

    Returns:
        the counts (M, M) and the M names; those given if there are few.
    """
    if classes <= MOST_CLASSES:
        return matrix, list(names)
    chosen: dict[int, None] = {}
    for pair in confused_pairs(matrix, classes):
        chosen.update(dict.fromkeys(pair))
        if len(chosen) >= MOST_SHOWN:
            break
    # Without confusion: the classes with most truth.
    frequent = np.argsort(-matrix[:classes].sum(1), kind="stable").tolist()
    chosen.update(dict.fromkeys(frequent[: max(0, MOST_SHOWN - len(chosen))]))
    kept = sorted(list(chosen)[:MOST_SHOWN])
    rest = sorted(set(range(classes)) - set(kept))
    order = [[index] for index in kept]
    order += [rest, *([index] for index in range(classes, len(names)))]
    rows = np.stack([matrix[group].sum(0) for group in order])
    merged = np.stack([rows[:, group].sum(1) for group in order], 1)
    others = f"{len(rest)} other classes"
    return merged, [
        *(names[index] for index in kept),
        *(others, *names[classes:]),
    ]


def confusion(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """The confusion matrix, each row in per cent of its sum.

    Args:
        matrix: counts (N, N), truth by prediction.
        names: the N names of its rows and columns.
    """
    count = len(names)
    side = 2.3 + (0.27 if count > 12 else 0.4) * max(count, 4)
    figure = Figure(figsize=(side, side - 0.6), layout="constrained")
    axes = figure.subplots()
    totals = matrix.sum(1, keepdims=True)
    shares = 100 * matrix / np.maximum(totals, 1)
    drawn = np.ma.masked_where(np.repeat(totals == 0, count, 1), shares)
    colors = matplotlib.colormaps["Blues"].with_extremes(bad="#f4f4f4")
    image = axes.imshow(drawn, cmap=colors, vmin=0, vmax=100, interpolation="nearest")
    for row, column in np.argwhere(shares >= 0.5):
        axes.text(
            *(column, row, f"{shares[row, column]:.0f}"),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if shares[row, column] > 55 else "#333333",
        )
    texts = [_short(shown(name)) for name in names]
    axes.set_xticks(range(count), texts, rotation=90, fontsize=9)
    axes.set_yticks(range(count), texts, fontsize=9)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    figure.colorbar(image, shrink=0.6, label="% of the row", aspect=30)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= SHORT_NAME else f"{name[: SHORT_NAME - 1]}…"


def precision_recall(precision: np.ndarray, names: Sequence[str]) -> Figure | None:
    """Precision over recall: a line for each class, or of many classes two areas.

    Args:
        precision: (classes, 101) at recall 0 to 1, NaN for classes without objects.
        names: the classes.

    Returns:
        None if no class has objects.
    """
    known = np.flatnonzero(~np.isnan(precision).any(1))
    if not known.size:
        return None
    figure, axes = panel("", 4.2)
    recall = np.linspace(0, 1, precision.shape[1])
    if len(known) <= FEW_LINES:
        if len(known) > 1:
            mean = precision[known].mean(0)
            axes.plot(recall, mean, color="#1c1c1c", linewidth=2.5, label="mean")
        draw(
            axes,
            [curve(names[i], zip(recall, precision[i], strict=True)) for i in known],
        )
    else:
        band(axes, recall, precision[known], "classes")
    legend(axes)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    return figure
