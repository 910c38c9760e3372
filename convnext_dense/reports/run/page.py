"""Writes the HTML page about a run."""

import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from mmengine.config import Config

from convnext_dense.optim.layer_decay import Layer

from .. import pages
from . import curves, environment, figures
from .results import Picture, ValidationResults

CONFUSED = 15  # pairs of classes in the table for many classes
PICTURE_SIDE = 480  # pixels
LONGEST_STEP = 1e6  # seconds; more, or NaN, is no time
FIGURES = (
    *("training", "metrics", "learning_rate", "timing"),
    *("confusion", "precision"),
)


def write(
    file: str | os.PathLike,
    work_dir: str | os.PathLike,
    cfg: Config,
    results: ValidationResults | str,
    checkpoint: str | None,
    layers: Sequence[Layer] | None,
    facts: dict[str, str],
) -> None:
    """Write the page, in one file.

    Args:
        file: the page.
        work_dir: the work dir of the run, with its logs.
        cfg: the config of the run.
        results: of one validation, or the reason why there are none.
        checkpoint: the name of the checkpoint that was validated; None for the last
            validation of the training.
        layers: the layers of layer decay; None for a run without it.
        facts: more names and values for the top of the page.

    Raises:
        InputError: the file cannot be written.
    """
    logged = curves.read(work_dir)
    metric_facts = _metric_facts(logged, cfg)
    run_environment = environment.of_run(work_dir)
    validated = None if isinstance(results, str) else results
    with figures.style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has them
        pages.write(
            file,
            "run_report.html",
            title=Path(work_dir).resolve().name,
            facts=[*metric_facts, *_progress(logged, cfg), *facts.items()],
            warnings=_warnings(logged),
            sessions=logged.sessions,
            figures=_figures(logged, cfg, layers, validated),
            layered=bool(layers),
            eta_min=bool(layers) and _has_eta_min(cfg),
            results=validated,
            missing=results if validated is None else None,
            checkpoint=checkpoint,
            last=_when(logged.validations[-1]) if logged.validations else None,
            best_is_another=len(metric_facts) > 1,
            unit="" if cfg.default_scope == "mmdet" else "The values are per cent.",
            table=_table(validated) if validated else None,
            confused=_confused(validated) if validated else None,
            best=_pictures(validated.best) if validated else None,
            worst=_pictures(validated.worst) if validated else None,
            environment=run_environment or environment.of_machine(),
            environment_is_of_run=bool(run_environment),
            versions=environment.toolbox_versions(cfg.default_scope),
            config=cfg.pretty_text,
            timing=_timing(logged),
        )


def _main_metric(logged: curves.Curves, cfg: Config) -> str | None:
    """The metric by which the run is judged; None without validations."""
    hook = cfg.get("default_hooks", {}).get("checkpoint") or {}
    save_best = hook.get("save_best")
    return curves.main_metric(
        logged.validations, save_best if isinstance(save_best, str) else None
    )


def _when(validation: curves.Validation) -> str:
    """'epoch 3' or 'iteration 2000'."""
    if validation.epoch is not None:
        return f"epoch {validation.epoch}"
    return f"iteration {validation.iteration}"


def _metric_facts(logged: curves.Curves, cfg: Config) -> list[tuple[str, str]]:
    """The last and, if it is another, the best value of the main metric."""
    main = _main_metric(logged, cfg)
    if main is None:
        return []
    known = [v for v in logged.validations if np.isfinite(v.metrics.get(main, np.nan))]
    if not known:
        return []
    best, last = max(known, key=lambda v: v.metrics[main]), known[-1]
    facts = [(f"{main}, {_when(last)}", f"{last.metrics[main]:.4g}")]
    if best is not last:
        facts.append((f"best {main}, {_when(best)}", f"{best.metrics[main]:.4g}"))
    return facts


def _progress(logged: curves.Curves, cfg: Config) -> list[tuple[str, str]]:
    """How far training has come, and how long it took."""
    if not logged.train:
        return []
    last, plan = logged.train[-1], cfg.get("train_cfg") or {}
    unit, done, planned = "iterations", last["iter"], plan.get("max_iters")
    if "epoch" in last:
        unit, done, planned = "epochs", last["epoch"], plan.get("max_epochs")
    facts = [(unit, f"{done:,}" + (f" of {planned:,}" if planned else ""))]
    return [*facts, *_timing(logged).items()]


def _timing(logged: curves.Curves) -> dict[str, str]:
    """Total time, time per step, share of waiting, and memory.

    mmengine logs the mean seconds of a step over the steps since the last line.
    """
    rows = [row for row in logged.train if 0 <= row.get("time", -1) < LONGEST_STEP]
    if not rows:
        return {}
    steps = np.diff([0, *(row["iter"] for row in rows)])
    total = float(steps @ [row["time"] for row in rows])
    waits = np.array([row.get("data_time", 0) for row in rows])
    waiting = float(steps @ np.where(np.isfinite(waits), waits, 0))
    timing = {
        "in training steps": str(timedelta(seconds=round(total))),
        "a step": f"{total / steps.sum():.3g} s",
        "waiting for data": f"{waiting / max(total, 1e-9):.0%}",
    }
    memory = max((row.get("memory", 0) for row in rows), default=0)
    if memory:
        timing["peak GPU memory"] = f"{memory / 1024:.1f} GB"  # mmengine logs MB
    return timing


def _warnings(logged: curves.Curves) -> list[str]:
    """Sentences on losses that are not finite and on damaged logs."""
    sentences = []
    losses = [(row["iter"], row["loss"]) for row in logged.train if "loss" in row]
    wrong = [iteration for iteration, loss in losses if not np.isfinite(loss)]
    if wrong:
        sentences.append(
            f"The loss is not finite at {len(wrong)} of {len(losses)} logged "
            f"iterations, first at {wrong[0]}."
        )
    if logged.unreadable:
        sentences.append(
            f"{logged.unreadable} lines of the log could not be read and are left out."
        )
    return sentences


def _figures(
    logged: curves.Curves,
    cfg: Config,
    layers: Sequence[Layer] | None,
    results: ValidationResults | None,
) -> dict[str, Markup | None]:
    """The figures by their names; None for one without data."""
    drawn: dict[str, Figure | None] = dict.fromkeys(FIGURES)
    if any("loss" in row for row in logged.train):
        drawn["training"] = figures.training(logged.train)
    main = _main_metric(logged, cfg)
    if main is not None:
        drawn["metrics"] = figures.metrics(logged.validations, main)
    with_lr = [row for row in logged.train if "lr" in row]
    if with_lr:
        drawn["learning_rate"] = figures.learning_rate(with_lr, layers)
    if any("time" in row for row in logged.train):
        drawn["timing"] = figures.timing(logged.train)
    if results:
        drawn["confusion"] = figures.confusion(results.matrix, results.matrix_names)
        if results.precision is not None:
            drawn["precision"] = figures.precision_recall(
                results.precision, results.classes
            )
    return {name: pages.figure(fig) if fig else None for name, fig in drawn.items()}


def _has_eta_min(cfg: Config) -> bool:
    """Whether a scheduler has a lowest rate, which no layer's scale changes."""
    schedulers = cfg.get("param_scheduler") or []
    schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
    return any(scheduler.get("eta_min") for scheduler in schedulers)


def _table(results: ValidationResults) -> list[dict]:
    """A row for all classes, then a row for each class, the best first.

    Returns:
        rows of ``name``, ``values`` and ``bar``, the first value as a fraction of the
        largest; None in the row of all classes.
    """
    first = results.per_class[:, 0]
    order = np.argsort(np.where(np.isnan(first), -1, first), kind="stable")[::-1]
    top = np.nanmax(first) if np.isfinite(first).any() else 0
    rows = [
        dict(
            name=results.classes[index],
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


def _confused(results: ValidationResults) -> list[dict]:
    """The pairs of classes that are confused most often.

    Empty for few classes, where the figure of the confusion has numbers.
    """
    count = len(results.matrix_names)
    if count <= figures.MANY + 1:
        return []
    matrix = results.matrix[: len(results.classes), : len(results.classes)].copy()
    totals = results.matrix.sum(1)
    np.fill_diagonal(matrix, 0)
    cells = np.argsort(matrix, axis=None, kind="stable")[::-1][:CONFUSED].tolist()
    pairs = (divmod(cell, len(results.classes)) for cell in cells)
    return [
        dict(
            truth=results.classes[truth],
            prediction=results.classes[prediction],
            count=int(matrix[truth, prediction]),
            share=matrix[truth, prediction] / totals[truth],
        )
        for truth, prediction in pairs
        if matrix[truth, prediction]
    ]


def _pictures(drawn: list[Picture]) -> list[dict]:
    """Pictures as the page's template needs them."""
    return [
        dict(
            name=picture.name,
            caption=picture.caption,
            truth=pages.picture(picture.truth, PICTURE_SIDE),
            prediction=pages.picture(picture.prediction, PICTURE_SIDE),
        )
        for picture in drawn
    ]
