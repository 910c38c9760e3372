"""The page about a run."""

import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from mmengine.config import Config

from convnext_dense.optim.layer_decay import Layer

from .. import pages
from . import curves, environment, figures
from .examples import Findings, Picture

CONFUSED = 15  # pairs listed, of many classes
PICTURE_SIDE = 480
FIGURES = (
    *("training", "metrics", "learning_rate", "timing"),
    *("confusion", "precision"),
)


def write(
    file: str | os.PathLike,
    work_dir: str | os.PathLike,
    cfg: Config,
    findings: Findings | str,
    checkpoint: str | None,
    layers: Sequence[Layer] | None,
    facts: dict[str, str],
) -> None:
    """Write the page, in one file.

    Args:
        file: where to.
        work_dir: of the run, with its logs.
        cfg: the run's config.
        findings: of one validation, or why there are none.
        checkpoint: whose they are; None for the last validation of the training.
        layers: of layer decay; None for a run without.
        facts: more to be shown at the top.

    Raises:
        InputError: the file cannot be written.
    """
    logged = curves.read(work_dir)
    results = _results(logged, cfg)
    here = environment.of_run(work_dir)
    found = None if isinstance(findings, str) else findings
    with figures.style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser's has it
        pages.write(
            file,
            "run_report.html",
            title=Path(work_dir).resolve().name,
            facts=[*results, *_progress(logged, cfg), *facts.items()],
            warnings=_warnings(logged),
            sessions=logged.sessions,
            figures=_figures(logged, cfg, layers, found),
            layered=bool(layers),
            eta_min=bool(layers) and _has_eta_min(cfg),
            findings=found,
            missing=findings if found is None else None,
            checkpoint=checkpoint,
            last=_when(logged.validations[-1]) if logged.validations else None,
            best_is_another=len(results) > 1,
            unit="" if cfg.default_scope == "mmdet" else "In per cent.",
            table=_table(found) if found else None,
            confused=_confused(found) if found else None,
            best=_pictures(found.best) if found else None,
            worst=_pictures(found.worst) if found else None,
            environment=here or environment.of_machine(),
            environment_is_of_run=bool(here),
            versions=environment.toolbox_versions(cfg.default_scope),
            config=cfg.pretty_text,
            timing=_timing(logged),
        )


def _main(logged: curves.Curves, cfg: Config) -> str | None:
    hook = cfg.get("default_hooks", {}).get("checkpoint") or {}
    save_best = hook.get("save_best")
    return curves.main_metric(
        logged.validations, save_best if isinstance(save_best, str) else None
    )


def _when(validation: curves.Validation) -> str:
    if validation.epoch is not None:
        return f"epoch {validation.epoch}"
    return f"iteration {validation.iteration}"


def _results(logged: curves.Curves, cfg: Config) -> list[tuple[str, str]]:
    main = _main(logged, cfg)
    known = [v for v in logged.validations if np.isfinite(v.metrics.get(main, np.nan))]
    if not known:
        return []
    best, last = max(known, key=lambda v: v.metrics[main]), known[-1]
    facts = [(f"{main}, {_when(last)}", f"{last.metrics[main]:.4g}")]
    if best is not last:
        facts.append((f"best {main}, {_when(best)}", f"{best.metrics[main]:.4g}"))
    return facts


def _progress(logged: curves.Curves, cfg: Config) -> list[tuple[str, str]]:
    if not logged.train:
        return []
    last, plan = logged.train[-1], cfg.get("train_cfg") or {}
    unit, done, planned = "iterations", last["iter"], plan.get("max_iters")
    if "epoch" in last:
        unit, done, planned = "epochs", last["epoch"], plan.get("max_epochs")
    facts = [(unit, f"{done:,}" + (f" of {planned:,}" if planned else ""))]
    facts += [(name, value) for name, value in _timing(logged).items()]
    return facts


def _timing(logged: curves.Curves) -> dict[str, str]:
    """What the log's seconds a step say; mmengine logs means over some steps."""
    rows = [row for row in logged.train if "time" in row]
    if not rows:
        return {}
    steps = np.diff([0, *(row["iter"] for row in rows)])
    total = float(steps @ [row["time"] for row in rows])
    waiting = float(steps @ [row.get("data_time", 0) for row in rows])
    told = {
        "in training steps": str(timedelta(seconds=round(total))),
        "a step": f"{total / steps.sum():.3g} s",
        "waiting for data": f"{waiting / max(total, 1e-9):.0%}",
    }
    memory = max((row.get("memory", 0) for row in rows), default=0)
    if memory:
        told["peak GPU memory"] = f"{memory / 1024:.1f} GB"  # mmengine logs MB
    return told


def _warnings(logged: curves.Curves) -> list[str]:
    told = []
    losses = [(row["iter"], row["loss"]) for row in logged.train if "loss" in row]
    wrong = [iteration for iteration, loss in losses if not np.isfinite(loss)]
    if wrong:
        told.append(
            f"The loss is not finite at {len(wrong)} of {len(losses)} logged "
            f"iterations, first at {wrong[0]}."
        )
    if logged.unreadable:
        told.append(
            f"{logged.unreadable} lines of the log could not be read and are left out."
        )
    return told


def _figures(logged, cfg, layers, found: Findings | None) -> dict:
    drawn = dict.fromkeys(FIGURES)
    if any("loss" in row for row in logged.train):
        drawn["training"] = figures.training(logged.train)
    if logged.validations:
        drawn["metrics"] = figures.metrics(logged.validations, _main(logged, cfg))
    rated = [row for row in logged.train if "lr" in row]
    if rated:
        drawn["learning_rate"] = figures.learning_rate(rated, layers)
    if any("time" in row for row in logged.train):
        drawn["timing"] = figures.timing(logged.train)
    if found:
        drawn["confusion"] = figures.confusion(found.matrix, found.matrix_rows)
        if found.precision is not None:
            drawn["precision"] = figures.precision_recall(
                found.precision, found.classes
            )
    return {name: fig and pages.figure(fig) for name, fig in drawn.items()}


def _has_eta_min(cfg: Config) -> bool:
    schedulers = cfg.get("param_scheduler") or []
    schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
    return any(scheduler.get("eta_min") for scheduler in schedulers)


def _table(found: Findings) -> list[dict]:
    """Rows of the classes, the best first, under one of all."""
    first = found.per_class[:, 0]
    order = np.argsort(np.where(np.isnan(first), -1, first), kind="stable")[::-1]
    top = np.nanmax(first) if np.isfinite(first).any() else 0
    rows = [
        dict(
            name=found.classes[index],
            values=found.per_class[index].tolist(),
            bar=first[index] / top if top > 0 and np.isfinite(first[index]) else 0,
        )
        for index in order.tolist()
    ]
    means = [
        float(np.nanmean(column)) if np.isfinite(column).any() else np.nan
        for column in found.per_class.T
    ]
    means[-1] = float(found.per_class[:, -1].sum())
    return [dict(name="all classes", values=means, bar=None), *rows]


def _confused(found: Findings) -> list[dict]:
    """The pairs that are confused most often, where the figure has no numbers."""
    count = len(found.matrix_rows)
    if count <= figures.MANY + 1:
        return []
    matrix = found.matrix[: len(found.classes), : len(found.classes)].copy()
    totals = found.matrix.sum(1)
    np.fill_diagonal(matrix, 0)
    cells = np.argsort(matrix, axis=None, kind="stable")[::-1][:CONFUSED].tolist()
    pairs = (divmod(cell, len(found.classes)) for cell in cells)
    return [
        dict(
            truth=found.classes[truth],
            prediction=found.classes[prediction],
            count=int(matrix[truth, prediction]),
            share=matrix[truth, prediction] / totals[truth],
        )
        for truth, prediction in pairs
        if matrix[truth, prediction]
    ]


def _pictures(drawn: list[Picture]) -> list[dict]:
    return [
        dict(
            name=one.name,
            caption=one.caption,
            truth=pages.picture(one.truth, PICTURE_SIDE),
            prediction=pages.picture(one.prediction, PICTURE_SIDE),
        )
        for one in drawn
    ]
