"""Draws the figures of the page about a run."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter
from numpy.lib.stride_tricks import sliding_window_view

from convnext_dense.errors import printable
from convnext_dense.optim.layer_decay import Layer

from .curves import Validation

MANY = 30  # With more classes, the confusion matrix has no numbers.
LEGEND = 10  # With more classes, precision over recall has no legend of classes.
MOST_LINES = 60  # in a panel, and panels of metrics; a run logs fewer
LONGEST_NAME = 60  # characters
STEP_COLOR = "#3182bd"


def style() -> AbstractContextManager:
    """A context to draw and save figures in.

    Names of classes become text in the SVG, not formulas or outlines.
    """
    return matplotlib.rc_context(
        {
            "text.parse_math": False,
            "svg.fonttype": "none",  # the browser has fonts for every script
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#eeeeee",
            "legend.frameon": False,
            "legend.fontsize": 8,
            "axes.titlesize": 10,
        }
    )


def _shown(name: str) -> str:
    """A name that fits into a figure; an SVG file cannot hold control characters."""
    return printable(str(name), LONGEST_NAME)


def _axes(
    columns: int, panels: int, width: float = 11.0, height: float = 2.9
) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of panels.

    Args:
        columns, panels: the number of columns and of panels.
        width: of the figure, in inches.
        height: of each row, in inches.
    """
    rows = -(-panels // columns)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in grid[panels:]:
        unused.set_axis_off()
    return figure, list(grid[:panels])


def training(train: Sequence[dict]) -> Figure:
    """The loss, its terms, training accuracies and the norm of the gradient.

    Args:
        train: the logged iterations, as ``Curves.train``.
    """
    names = dict.fromkeys(name for row in train for name in row)
    terms = [name for name in names if "loss" in name and name != "loss"]
    terms = terms[:MOST_LINES]
    accuracies = [name for name in names if name.split(".")[-1].startswith("acc")]
    accuracies = accuracies[:MOST_LINES]
    norms = [name for name in names if name == "grad_norm"]
    panels = {
        "loss": [name for name in names if name == "loss"],
        "terms of the loss": terms if len(terms) > 1 else [],
        "accuracy on training batches, %": accuracies,
        "norm of the gradient": norms,
    }
    panels = {title: lines for title, lines in panels.items() if lines}
    figure, grid = _axes(2 if len(panels) > 1 else 1, len(panels))
    for axes, (title, lines) in zip(grid, panels.items(), strict=True):
        for index, name in enumerate(lines):
            points = [(row["iter"], row[name]) for row in train if name in row]
            color = matplotlib.colormaps["tab20"](index % 20)
            _line(
                axes,
                *_numbers(points),
                _shown(name),
                color if len(lines) > 1 else "#08519c",
            )
        axes.set_title(title, loc="left")
        _count(axes, "iteration")
        if len(lines) > 1:
            axes.legend(ncols=1 + len(lines) // 9)
    return figure


def _count(axes: Axes, label: str) -> None:
    """Let the x-axis count iterations or epochs: whole numbers, such as 160k."""
    axes.locator_params(axis="x", integer=True)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(label)


def _numbers(points: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    """x and y of points; NaN for a y that is not finite."""
    x, y = np.array(points, float).T
    return x, np.where(np.isfinite(y), y, np.nan)


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, label: str, color) -> None:
    """Draw a line; if it has many points, draw it faint, with its running median."""
    style = dict(color=color, label=label)
    if len(x) <= 100:
        axes.plot(x, y, linewidth=1.5, marker="." if len(x) < 20 else None, **style)
        return
    half = len(x) // 100
    around = sliding_window_view(np.pad(y, half, constant_values=np.nan), 2 * half + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of medians where all values are NaN
        middle = np.nanmedian(around, 1)
        usual = np.nanpercentile(y, (1, 99))
    kept = slice(None, None, -(-len(x) // 1000))
    # add_artist, unlike plot, does not stretch the axes, so one spike does not flatten
    # the rest of the line.
    axes.add_artist(Line2D(x[kept], y[kept], color=color, linewidth=0.6, alpha=0.35))
    if np.isfinite(usual).all():
        axes.update_datalim([(x[0], usual[0]), (x[-1], usual[1])])
    axes.plot(x[kept], middle[kept], linewidth=1.5, **style)


def metrics(validations: Sequence[Validation], main: str) -> Figure:
    """A panel for each group of metrics, with a star at the best value of ``main``."""
    names = list(dict.fromkeys(name for v in validations for name in v.metrics))
    # The main metric, and of the others those that a run logs first.
    names = [name for name in names if name == main or name in names[:MOST_LINES]]
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(name.split("_")[0] if "AP" in name else "", []).append(name)
    by_epoch = all(v.epoch is not None for v in validations)
    figure, grid = _axes(min(2, len(panels)), len(panels))
    for axes, (title, lines) in zip(grid, panels.items(), strict=True):
        bold = main if main in lines else lines[0]
        for name in lines:
            points = [
                (v.epoch if by_epoch else v.iteration, v.metrics[name])
                for v in validations
                if name in v.metrics
                and v.metrics[name] != -1  # pycocotools' value without objects
            ]
            if not points:
                continue
            x, y = _numbers(points)
            width = 2.2 if name == bold else 1.2
            short = name.removeprefix(f"{title}_")
            axes.plot(x, y, marker=".", label=_shown(short), linewidth=width)
            if name == main and np.isfinite(y).any():
                best = int(np.nanargmax(y))
                axes.plot(x[best], y[best], "*", color="#d95f02", markersize=13)
                text = f"{y[best]:.4g}"
                axes.annotate(
                    text,
                    (x[best], y[best]),
                    xytext=(0, 9),
                    textcoords="offset points",
                    ha="center",
                    fontweight="bold",
                )
        axes.margins(y=0.15)
        axes.set_title(_shown(title), loc="left")
        _count(axes, "epoch" if by_epoch else "iteration")
        axes.legend(ncols=1 + len(lines) // 5)
    return figure


def learning_rate(train: Sequence[dict], layers: Sequence[Layer] | None) -> Figure:
    """The learning rate over the run; with layer decay a line for each layer.

    Args:
        train: the logged iterations, each with ``lr``.
        layers: the layers of layer decay; the last one's line is the lightest.
    """
    figure, (axes,) = _axes(1, 1, width=8.5, height=3.4)
    x = [row["iter"] for row in train]
    base = np.array([row.get("base_lr", row["lr"]) for row in train], float)
    marker = "." if len(x) < 20 else None
    if not layers:
        axes.plot(x, base, color=STEP_COLOR, marker=marker)
    layers = layers or ()
    for index, layer in enumerate(layers):
        color = matplotlib.colormaps["viridis"](index / len(layers))
        rates = np.where(base > 0, base * layer.lr_scale, np.nan)
        names = ", ".join(layer.parts[:2]) + (" ..." if len(layer.parts) > 2 else "")
        label = f"{layer.number}: {names}"
        axes.plot(x, rates, color=color, label=label, marker=marker, linewidth=1.3)
    if layers and (base > 0).any():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        peak = base.max()
        axes.set_ylim(max(base[base > 0].min(), peak / 100) * layers[0].lr_scale, None)
        axes.legend(
            *(entries[::-1] for entries in axes.get_legend_handles_labels()),
            title="layer",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
        )
    _count(axes, "iteration")
    axes.set_ylabel("learning rate")
    return figure


def timing(train: Sequence[dict]) -> Figure:
    """Seconds per step, and the seconds of them that wait for data."""
    figure, (axes,) = _axes(1, 1, width=8.5, height=2.4)
    for name, label, color in (
        ("time", "step", STEP_COLOR),
        ("data_time", "of it waiting for data", "#e6550d"),
    ):
        points = [(row["iter"], row[name]) for row in train if name in row]
        if points:
            _line(axes, *_numbers(points), label, color)
    axes.set_ylim(bottom=0)
    _count(axes, "iteration")
    axes.set_ylabel("seconds")
    axes.legend()
    return figure


def confusion(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """The confusion matrix, each row in per cent of its sum.

    Args:
        matrix: counts (N, N), truth by prediction.
        names: the N names of its rows and columns.
    """
    count = len(names)
    many = count > MANY + 1
    side = 8.2 if many else 2.2 + 0.42 * count
    figure = Figure(figsize=(side, side * 0.92), layout="constrained")
    axes = figure.subplots()
    shares = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    drawn = np.ma.masked_where(
        np.repeat(matrix.sum(1, keepdims=True) == 0, count, 1), shares
    )
    colors = matplotlib.colormaps["Blues"].with_extremes(bad="#f4f4f4")
    image = axes.imshow(drawn, cmap=colors, vmin=0, vmax=100, interpolation="nearest")
    if not many:
        for row, column in np.argwhere(shares >= 0.5):
            axes.text(
                *(column, row, f"{shares[row, column]:.0f}"),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 55 else "#333333",
            )
    names = [_shown(name) for name in names]
    size = 9 if not many else max(2.5, min(7, 480 / count))
    if count <= 200:
        axes.set_xticks(range(count), names, rotation=90, fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    figure.colorbar(image, shrink=0.6, label="% of the row", aspect=30)
    return figure


def precision_recall(precision: np.ndarray, names: Sequence[str]) -> Figure:
    """Precision over recall: a thin line for each class, a thick one for the mean.

    Args:
        precision: (classes, 101) at recall 0 to 1, NaN for classes without objects.
        names: the classes.
    """
    figure, (axes,) = _axes(1, 1, width=6.2, height=4.6)
    recall = np.linspace(0, 1, precision.shape[1])
    known = ~np.isnan(precision).any(1)
    with_legend = known.sum() <= LEGEND
    for index, (name, line) in enumerate(zip(names, precision, strict=True)):
        if known[index]:
            color = f"C{index % 10}" if with_legend else "#9ecae1"
            axes.plot(recall, line, color=color, linewidth=1.2 if with_legend else 0.6)
            axes.lines[-1].set_label(_shown(name) if with_legend else "_")
    if known.any():
        mean = precision[known].mean(0)
        axes.plot(recall, mean, color="black", linewidth=2.5, label="mean")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
