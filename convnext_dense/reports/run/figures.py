"""Draws what a run has logged: losses, metrics, learning rates and times."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convnext_dense.optim.layer_decay import Layer

from .curves import ClassValues, Validation
from .panels import (
    FEW_LINES,
    FEW_POINTS,
    LABELLED,
    MOST_LINES,
    band,
    count_axis,
    curve,
    draw,
    legend,
    panel,
    shown,
)

MOST_LAYERS = 16  # named in the legend of the learning rates
MOST_PANELS = 20  # of metrics


def training(train: Sequence[dict]) -> list[Figure]:
    """The loss, its terms, training accuracies and the norm of the gradient.

    Args:
        train: the logged iterations, as ``Curves.train``.
    """
    names = dict.fromkeys(name for row in train for name in row)
    terms = [name for name in names if "loss" in name and name != "loss"]
    panels = {
        "loss": [name for name in names if name == "loss"],
        "terms of the loss": terms if len(terms) > 1 else [],
        "accuracy on training batches, %": [
            name for name in names if name.split(".")[-1].startswith("acc")
        ],
        "norm of the gradient": [name for name in names if name == "grad_norm"],
    }
    drawn = []
    for title, lines in panels.items():
        if lines:
            figure, axes = panel(title)
            draw(axes, [_logged(train, name) for name in lines])
            legend(axes)
            count_axis(axes, "iteration")
            drawn.append(figure)
    return drawn


def _logged(train: Sequence[dict], name: str):
    """The curve of a logged value over the iterations."""
    return curve(name, ((row["iter"], row[name]) for row in train if name in row))


def metrics(
    validations: Sequence[Validation], main: str, best: Validation | None
) -> list[Figure]:
    """A panel for each group of metrics, with a star at the best value of ``main``.

    Args:
        main: a metric of ``validations``.
        best: the validation with the best value of ``main``.
    """
    names = list(dict.fromkeys(name for v in validations for name in v.metrics))
    # The main metric, and of the others those that a run logs first.
    names = [name for name in names if name == main or name in names[:MOST_LINES]]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split("_")[0] if "AP" in name else "", []).append(name)
    drawn = []
    for title, lines in list(groups.items())[:MOST_PANELS]:
        figure, axes = panel(title or "metrics")
        curves = []
        for name in lines:
            points = [
                (_when(v, validations), v.metrics[name])
                for v in validations
                if name in v.metrics
                and v.metrics[name] != -1  # pycocotools' value without objects
            ]
            if points:
                curves.append(curve(name.removeprefix(f"{title}_"), points))
        if not curves:
            continue
        draw(axes, curves, main.removeprefix(f"{title}_"))
        legend(axes)
        if main in lines and best is not None:
            _star(axes, _when(best, validations), best.metrics[main])
        axes.margins(y=0.15)
        _count_validations(axes, validations)
        drawn.append(figure)
    return drawn


def _when(validation: Validation, validations: Sequence[Validation]) -> int:
    """The place of a validation on the x-axis: its epoch if all have one."""
    by_epoch = all(v.epoch is not None for v in validations)
    epoch = validation.epoch
    return epoch if by_epoch and epoch is not None else validation.iteration


def _count_validations(axes: Axes, validations: Sequence[Validation]) -> None:
    by_epoch = all(v.epoch is not None for v in validations)
    count_axis(axes, "epoch" if by_epoch else "iteration")


def _star(axes: Axes, x: float, y: float) -> None:
    """Mark the best value, and write it above."""
    axes.plot(x, y, "*", color="#d95f02", markersize=12)
    axes.annotate(
        f"{y:.4g}",
        (x, y),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        fontweight="bold",
    )


def class_values(logged: ClassValues, validations: Sequence[Validation]) -> Figure:
    """The metric of each class: all by name if they are few.

    Of many classes, the areas in which most of them lie, and by name those that changed
    most and those that are worst at the end.
    """
    figure, axes = panel(f"{logged.measure} of each class", 3.2)
    x = np.array([_when(v, validations) for v in validations], float)
    curves = [
        curve(name, zip(x, y, strict=True))
        for name, y in zip(logged.names, logged.values.T, strict=True)
    ]
    if len(curves) <= FEW_LINES:
        draw(axes, curves)
    else:
        band(axes, x, logged.values.T, "classes")
        half = LABELLED // 2
        chosen = list(dict.fromkeys([*logged.changed()[:half], *logged.worst()[:half]]))
        draw(axes, [curves[index] for index in chosen])
    legend(axes)
    _count_validations(axes, validations)
    return figure


def learning_rate(train: Sequence[dict], layers: Sequence[Layer] | None) -> Figure:
    """The learning rate over the run; with layer decay a line for each layer.

    Args:
        train: the logged iterations, each with ``lr``.
        layers: the layers of layer decay; the last one's line is the lightest.
    """
    figure, axes = panel("learning rate")
    x = [row["iter"] for row in train]
    base = np.array([row.get("base_lr", row["lr"]) for row in train], float)
    marker = "." if len(x) < FEW_POINTS else None
    if not layers:
        axes.plot(x, base, color="#3182bd", marker=marker)
    layers = layers or ()
    named = {round(i) for i in np.linspace(0, len(layers) - 1, MOST_LAYERS)}
    for index, layer in enumerate(layers):
        color = matplotlib.colormaps["viridis"](index / len(layers))
        rates = base * layer.lr_scale
        rates = np.where(rates > 0, rates, np.nan)
        names = ", ".join(layer.parts[:2]) + (" ..." if len(layer.parts) > 2 else "")
        label = shown(f"{layer.number}: {names}") if index in named else "_"
        axes.plot(x, rates, color=color, label=label, marker=marker, linewidth=1.3)
    if layers and (base > 0).any():
        axes.set_yscale("log")
        peak = base.max()
        scales = [layer.lr_scale for layer in layers]
        lowest = min((scale for scale in scales if scale > 0), default=1)
        axes.set_ylim(max(base[base > 0].min(), peak / 100) * lowest, None)
        legend(axes)
    axes.yaxis.set_major_formatter("{x:g}")
    count_axis(axes, "iteration")
    return figure


def timing(train: Sequence[dict]) -> Figure:
    """Seconds per step, and the seconds of them that wait for data."""
    figure, axes = panel("seconds of a step")
    names = {"time": "step", "data_time": "of it waiting for data"}
    curves = [_logged(train, name)._replace(name=names[name]) for name in names]
    draw(axes, [c for c in curves if len(c.x)])
    legend(axes)
    axes.set_ylim(bottom=0)
    count_axis(axes, "iteration")
    return figure
