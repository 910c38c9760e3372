"""Writes the HTML page about a run."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from mmengine.config import Config

from convnext_dense.optim.layer_decay import Layer

from .. import pages
from . import curves, environment, figures, panels, progress, result_figures, tables
from .results import Picture, ValidationResults

PICTURE_SIDE = 480  # pixels
MOST_STARTS = 8  # shown at once
FIGURES = (
    *("metrics", "training", "confusion", "precision"),
    *("learning_rate", "timing"),
)


def write(
    file: str | os.PathLike,
    work_dir: str | os.PathLike,
    cfg: Config,
    results: ValidationResults | str,
    checkpoint: str | None,
    layers: Sequence[Layer] | None,
    facts: dict[str, str],
    options: Sequence[str] = (),
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
        options: the ``--cfg-options`` of the validation, which may be of other data.

    Raises:
        InputError: the file cannot be written.
    """
    logged = curves.read(work_dir)
    validations, by_class = curves.without_classes(logged.validations)
    logged = logged._replace(validations=validations)
    main = _main_metric(logged, cfg)
    best, last = _best_and_last(logged, cfg)
    reached = progress.read(work_dir, cfg, logged)
    lengths = progress.lengths(work_dir, logged.sessions)
    run_environment = environment.of_run(work_dir)
    validated = None if isinstance(results, str) else results
    rows = tables.class_rows(validated) if validated else []
    worst, best_classes = tables.worst_and_best(rows) if validated else ([], [])
    timing = tables.timing(logged, reached)
    with panels.style():
        pages.write(
            file,
            "run_report.html",
            title=Path(work_dir).resolve().name,
            subtitle=_subtitle(cfg),
            facts=[
                *_metric_facts(main, best, last),
                *_progress_facts(reached),
                *timing.items(),
                *facts.items(),
            ],
            warnings=[
                *(progress.sentences(reached, lengths, cfg, logged) if reached else ()),
                *_warnings(logged, main),
            ],
            few_logged=_few_logged(logged, reached, cfg),
            starts=[
                dict(session._asdict(), planned=planned)
                for session, planned in zip(logged.sessions, lengths, strict=True)
            ],
            most_starts=MOST_STARTS,
            figures=_figures(logged, cfg, layers, validated, by_class),
            only_metrics=_only_metrics(logged),
            only_logged=tables.logged_values(logged.train)
            if len(logged.train) == 1
            else [],
            layered=bool(layers),
            eta_min=bool(layers) and _has_eta_min(cfg),
            results=validated,
            missing=results if validated is None else None,
            checkpoint=checkpoint,
            options=shlex.join(options),
            last=_when(logged.validations[-1]) if logged.validations else None,
            best_command=_best_command(work_dir, best, last),
            unit="" if cfg.default_scope == "mmdet" else "The values are per cent.",
            rows=rows,
            worst_rows=worst,
            best_rows=best_classes,
            notes=tables.class_sentences(validated) if validated else [],
            changed=tables.changed(by_class),
            changed_measure=by_class.measure if by_class else None,
            changed_from=_when(validations[0]) if validations else None,
            changed_to=_when(validations[-1]) if validations else None,
            confused=tables.confused(validated) if validated else [],
            best=_pictures(validated.best) if validated else None,
            worst=_pictures(validated.worst) if validated else None,
            environment=run_environment or environment.of_machine(),
            environment_is_of_run=bool(run_environment),
            versions=environment.toolbox_versions(cfg.default_scope),
            config=cfg.pretty_text,
            timing=timing,
        )


def _subtitle(cfg: Config) -> str:
    """The model and its backbone, such as 'CascadeRCNN, ConvNeXt tiny'."""
    model = cfg.get("model") or {}
    backbone = model.get("backbone") or {}
    name = f"{backbone.get('type', '')} {backbone.get('arch', '')}".strip()
    names = [str(model.get("type") or ""), name if len(name) < 60 else ""]
    return ", ".join(filter(None, names))


def _main_metric(logged: curves.Curves, cfg: Config) -> str | None:
    """The metric by which the run is judged; None without validations."""
    hook = cfg.get("default_hooks", {}).get("checkpoint") or {}
    save_best = hook.get("save_best")
    return curves.main_metric(
        logged.validations, save_best if isinstance(save_best, str) else None
    )


def _best_and_last(
    logged: curves.Curves, cfg: Config
) -> tuple[curves.Validation | None, curves.Validation | None]:
    """The best and the last validation by the main metric, of those that have it."""
    main = _main_metric(logged, cfg)
    known = [
        v
        for v in logged.validations
        if main is not None and np.isfinite(v.metrics.get(main, np.nan))
    ]
    if main is None or not known:
        return None, None
    hook = cfg.get("default_hooks", {}).get("checkpoint") or {}
    better = min if hook.get("rule") == "less" else max
    return better(known, key=lambda v: v.metrics[main]), known[-1]


def _when(validation: curves.Validation) -> str:
    """'epoch 3' or 'iteration 2,000'."""
    if validation.epoch is not None:
        return f"epoch {validation.epoch:,}"
    return f"iteration {validation.iteration:,}"


def _metric_facts(
    main: str | None, best: curves.Validation | None, last: curves.Validation | None
) -> list[tuple[str, str]]:
    """The last and, if it is another, the best value of the main metric."""
    if main is None or best is None or last is None:
        return []
    facts = [(f"{main}, {_when(last)}", f"{last.metrics[main]:.4g}")]
    if best is not last:
        facts.append((f"best {main}, {_when(best)}", f"{best.metrics[main]:.4g}"))
    return facts


def _best_command(
    work_dir: str | os.PathLike,
    best: curves.Validation | None,
    last: curves.Validation | None,
) -> str | None:
    """The command for a page of the best validation; None if it is the last one.

    '' if its checkpoint was not kept.
    """
    if best is None or best is last:
        return None
    number = best.iteration if best.epoch is None else best.epoch
    unit = "iter" if best.epoch is None else "epoch"
    end = f"{unit}_{number}.pth"
    folder = Path(work_dir)
    kept = [*sorted(folder.glob(f"best_*_{end}")), folder / end]
    for file in kept:
        if file.is_file():
            arguments = [str(folder), "--checkpoint", str(file)]
            return f"convnext-dense report {shlex.join(arguments)}"
    return ""


def _progress_facts(reached: progress.Progress | None) -> list[tuple[str, str]]:
    """How far training has come."""
    if reached is None:
        return []
    planned = f" of {reached.planned:,}" if reached.planned else ""
    return [(reached.unit, f"{reached.done:,}{planned}")]


def _only_metrics(logged: curves.Curves) -> list[tuple[str, str]]:
    """The metrics of the only validation, which make no curves."""
    only = logged.validations
    return tables.metric_values(only[0]) if len(only) == 1 else []


def _few_logged(
    logged: curves.Curves, reached: progress.Progress | None, cfg: Config
) -> str | None:
    """Why there are no curves of the training; None if there are."""
    if len(logged.train) > 1:
        return None
    if not logged.train and reached is None:
        return "The work dir has no log of the training."
    hook = cfg.get("default_hooks", {}).get("logger") or {}
    interval = hook.get("interval", 10)  # mmengine's default
    what = "One iteration was" if logged.train else "No iteration was"
    return (
        f"{what} logged: the run writes a line every {interval} iterations. "
        "--cfg-options default_hooks.logger.interval=1 makes it log each."
    )


def _warnings(logged: curves.Curves, main: str | None) -> list[str]:
    """Sentences on values that are not finite and on damaged logs."""
    sentences = []
    losses = [(row["iter"], row["loss"]) for row in logged.train if "loss" in row]
    wrong = [iteration for iteration, loss in losses if not np.isfinite(loss)]
    if wrong:
        sentences.append(
            f"The loss is not finite at {len(wrong)} of {len(losses)} logged "
            f"iterations, first at {wrong[0]}."
        )
    results = [v.metrics[main] for v in logged.validations if main in v.metrics]
    unknown = len(results) - int(np.isfinite(results).sum())
    if unknown:
        sentences.append(
            f"{main} is not a number in {unknown} of {len(results)} validations."
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
    by_class: curves.ClassValues | None,
) -> dict[str, list[Markup]]:
    """The panels of each figure; none for one without data, or of one point."""
    drawn: dict[str, list[Figure]] = {name: [] for name in FIGURES}
    many_rows = len(logged.train) > 1
    if many_rows:
        drawn["training"] = figures.training(logged.train)
    main = _main_metric(logged, cfg)
    if main is not None and len(logged.validations) > 1:
        best, _ = _best_and_last(logged, cfg)
        drawn["metrics"] = figures.metrics(logged.validations, main, best)
        if by_class:
            classes = figures.class_values(by_class, logged.validations)
            drawn["metrics"].append(classes)
    with_lr = [row for row in logged.train if "lr" in row]
    if with_lr and (many_rows or layers):
        drawn["learning_rate"] = [figures.learning_rate(with_lr, layers)]
    if many_rows and any("time" in row for row in logged.train):
        drawn["timing"] = [figures.timing(logged.train)]
    if results:
        matrix, names = result_figures.most_confused(
            results.matrix, results.matrix_names, len(results.classes)
        )
        drawn["confusion"] = [result_figures.confusion(matrix, names)]
        if results.precision is not None:
            precision = result_figures.precision_recall(
                results.precision, results.classes
            )
            drawn["precision"] = [precision] if precision else []
    return {name: list(map(pages.figure, group)) for name, group in drawn.items()}


def _has_eta_min(cfg: Config) -> bool:
    """Whether a scheduler has a lowest rate, which no layer's scale changes."""
    schedulers = cfg.get("param_scheduler") or []
    schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
    return any(scheduler.get("eta_min") for scheduler in schedulers)


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
