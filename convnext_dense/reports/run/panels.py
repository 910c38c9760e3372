"""The parts that the figures of a run's page share: style, panels, lines, legends."""

import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.lib.stride_tricks import sliding_window_view

from convnext_dense.errors import printable

FEW_LINES = 12  # of a panel have a colour and a name each
LABELLED = 8  # of more lines have them; the others are grey
MOST_LINES = 60  # in a panel; a run logs fewer
LONGEST_NAME = 60  # characters
FEW_POINTS = 20  # lines of fewer points have markers
WIDTH, HEIGHT = 5.6, 2.9  # of a panel, in inches
LEGEND_ROW = 0.19  # inches
GREY = "#c4c9cf"
COLORS = (
    *("#08519c", "#e6550d", "#31a354", "#756bb1"),
    *("#c51b8a", "#8c6d31", "#17a2b8", "#525252"),
)


class Curve(NamedTuple):
    """A line of a panel: its name, x and y, both (points,); NaN for no value."""

    name: str
    x: np.ndarray
    y: np.ndarray


def style() -> AbstractContextManager:
    """A context to draw and save figures in, where names are no formulas."""
    return matplotlib.rc_context(
        {
            "text.parse_math": False,
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.formatter.useoffset": False,
            "grid.color": "#eeeeee",
            "legend.frameon": False,
            "legend.fontsize": 8,
            "axes.titlesize": 10,
        }
    )


def shown(name: str) -> str:
    """A name that fits into a figure; an SVG file cannot hold control characters.

    Matplotlib leaves names that begin with an underscore out of legends.
    """
    text = printable(str(name), LONGEST_NAME)
    return f"\u200a{text}" if text.startswith("_") else text


def panel(title: str, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure of one panel; the page puts two beside each other where they fit."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(shown(title), loc="left")
    return figure, axes


def curve(name: str, points: Iterable[tuple[float, float]]) -> Curve:
    """The curve of (x, y) points; a y that is not finite becomes NaN."""
    x, y = np.array(list(points), float).reshape(-1, 2).T
    return Curve(name, x, np.where(np.isfinite(y), y, np.nan))


def count_axis(axes: Axes, label: str) -> None:
    """Let the x-axis count iterations or epochs: whole numbers, such as 160k."""
    axes.xaxis.set_major_locator(
        MaxNLocator(7, integer=True, min_n_ticks=1, steps=(1, 2, 4, 5, 10))
    )
    axes.xaxis.set_major_formatter(FuncFormatter(_whole))
    axes.set_xlabel(label)
    left, right = axes.get_xlim()
    if right - left < 1:  # of one point
        axes.set_xlim((left + right) / 2 - 0.5, (left + right) / 2 + 0.5)


def _whole(value: float, _: object) -> str:
    """A tick of an axis that counts; '' between two whole numbers."""
    if abs(value - round(value)) > 1e-6:
        return ""
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:.0f}"


def draw(axes: Axes, curves: Sequence[Curve], main: str | None = None) -> None:
    """Draw curves: up to ``FEW_LINES`` of them with a colour and a name each.

    Of more, those that end highest have a name, and the others are grey, up to
    ``MOST_LINES``.

    Args:
        main: the name of a curve that has a thicker line, and a name in any case.
    """
    named = list(range(len(curves)))
    if len(curves) > FEW_LINES:
        named.sort(key=lambda i: (curves[i].name != main, -_end(curves[i])))
        del named[LABELLED:]
    others = [i for i in range(len(curves)) if i not in named]
    for i in others[: MOST_LINES - len(named)]:
        _line(axes, curves[i], GREY, "_", 0.8)
    for color, i in zip(_colors(len(named)), sorted(named), strict=True):
        width = 2.4 if curves[i].name == main else 1.4
        _line(axes, curves[i], color, shown(curves[i].name), width)
    if others:
        axes.plot([], [], color=GREY, label=f"and {len(others)} more")


def _end(c: Curve) -> float:
    """The mean of a curve's last quarter; 0 for a curve without values."""
    finite = c.y[np.isfinite(c.y)]
    return float(finite[-max(1, len(finite) // 4) :].mean()) if finite.size else 0.0


def _colors(count: int) -> list[Any]:
    """A colour for each of the named lines."""
    if count <= len(COLORS):
        return list(COLORS[:count])
    return [matplotlib.colormaps["tab20"](index % 20) for index in range(count)]


def legend(axes: Axes) -> None:
    """Put the legend below the axes, in columns, and let the figure grow for it.

    A line alone has none.
    """
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < 2:
        return
    columns = int(max(1, min(4, 84 // (max(map(len, labels)) + 6))))
    figure: Any = axes.figure
    rows = -(-len(labels) // columns)
    columns = -(-len(labels) // rows)
    figure.set_size_inches(WIDTH, figure.get_figheight() + LEGEND_ROW * rows)
    figure.legend(handles, labels, loc="outside lower left", ncols=columns)


def _line(axes: Axes, c: Curve, color: Any, label: str, width: float) -> None:
    """Draw a line; if it has many points, draw it faint, with its running median."""
    x, y = c.x, c.y
    style: dict[str, Any] = dict(color=color, label=label, linewidth=width)
    if len(x) <= 100:
        marker = "." if len(x) < FEW_POINTS else None
        axes.plot(x, y, marker=marker, **style)
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
    axes.plot(x[kept], middle[kept], **style)


def band(axes: Axes, x: np.ndarray, values: np.ndarray, what: str) -> None:
    """Draw many curves as two areas, of the middle 80 % and 50 %, and their mean.

    Args:
        x: (points,).
        values: (curves, points); NaN for no value.
        what: what the curves are, in the plural.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of points where all values are NaN
        low, q1, q3, high = np.nanpercentile(values, (10, 25, 75, 90), axis=0)
        mean = np.nanmean(values, 0)
    number = len(values)
    axes.fill_between(
        x, low, high, color="#e7ecf1", lw=0, label=f"80 % of {number} {what}"
    )
    axes.fill_between(x, q1, q3, color="#c6d3e1", lw=0, label=f"50 % of {number}")
    marker = "." if len(x) < FEW_POINTS else None
    axes.plot(x, mean, color="#1c1c1c", linewidth=2.2, marker=marker, label="mean")
