"""The page about a run that is over, or was stopped: ``tools/report.py``."""

import copy
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from convnext_dense.config.checks.files import check_weights
from convnext_dense.config.checks.requirements import check_toolbox
from convnext_dense.config.options import load_config
from convnext_dense.engine.build import build_layer_decay
from convnext_dense.engine.runner import run
from convnext_dense.errors import InputError
from convnext_dense.optim.layer_decay import (
    Layer,
    LayerDecayOptimWrapperConstructor,
    layers_of,
)
from convnext_dense.reports.run import curves, page
from convnext_dense.reports.run.hook import PAGE, RunReportHook, facts


def report(
    work_dir: str | os.PathLike,
    checkpoint: str | None = None,
    out: str | os.PathLike | None = None,
    options: Sequence[str] | None = None,
) -> None:
    """Write the page about the run in ``work_dir``, evaluating it once more.

    What cannot be evaluated, for want of a checkpoint or of the data, leaves a
    page of curves that says why.

    Args:
        work_dir: of a run, with its config and logs.
        checkpoint: by default the best one, or else the last.
        out: the page; ``work_dir/report.html`` by default.
        options: ``--cfg-options``.

    Raises:
        InputError: ``work_dir`` is not of a run, or what was given is wrong.
    """
    work_dir = Path(work_dir)
    shown = load_config(str(_config(work_dir)), options)
    chosen = checkpoint or _checkpoint(work_dir)
    if chosen is None and not curves.read(work_dir).train:
        raise InputError(
            f"{work_dir} has neither a log of its training nor a checkpoint"
        )
    cfg = copy.deepcopy(shown)
    cfg.load_from, cfg.resume = str(chosen) if chosen else None, False
    if "visualizer" in cfg:
        cfg.visualizer.vis_backends = None  # this is no run to be logged
    check_toolbox(cfg)
    check_weights(cfg, ())
    hook, told, results = RunReportHook(), {}, "The run left no checkpoint."
    if chosen is not None:
        try:
            runner = _validate(cfg, hook)
            results, told = hook.results(runner), facts(runner, ("val",))
        except Exception as error:  # of a model or a data set of any kind
            if checkpoint or options:
                raise
            results = f"{chosen} could not be evaluated: {error}"
    if isinstance(results, str):
        print_log(f"curves alone: {results}", "current")
    file, name = Path(out or work_dir / PAGE), Path(chosen or "").name
    page.write(file, work_dir, shown, results, name, _layers(cfg), told)
    print_log(f"the run report is {file}", "current")


def _config(work_dir: Path) -> Path:
    """The newest one that mmengine left there."""
    if not work_dir.is_dir():
        raise InputError(f"no folder {work_dir}; name the work dir of a run")
    configs = sorted(work_dir.glob("*.py"), key=lambda file: file.stat().st_mtime)
    if not configs:
        raise InputError(
            f"{work_dir} is not the work dir of a run: it has no config; a run of "
            "tools/train.py leaves one beside its checkpoints"
        )
    return configs[-1]


def _checkpoint(work_dir: Path) -> Path | None:
    best = sorted(work_dir.glob("best_*.pth"), key=lambda file: file.stat().st_mtime)
    if best:
        return best[-1]
    told = work_dir / "last_checkpoint"
    if not told.is_file():
        return None
    last = Path(told.read_text().strip())
    places = (last, work_dir / last.name)  # the run may have been moved
    return next((place for place in places if place.is_file()), None)


def _validate(cfg: Config, hook: RunReportHook) -> Runner:
    """Run ``hook`` through one validation, which leaves no files."""
    with tempfile.TemporaryDirectory() as cfg.work_dir:
        return run(cfg, "val", hooks=[hook])


def _layers(cfg: Config) -> list[Layer] | None:
    wrapper = cfg.get("optim_wrapper", {})
    if wrapper.get("constructor") != LayerDecayOptimWrapperConstructor.__name__:
        return None
    try:
        return layers_of(build_layer_decay(cfg))
    except InputError as error:
        print_log(f"the layers' learning rates are left out: {error}", "current")
        return None
