"""Write the report of a run that has ended, from its work dir."""

import copy
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from convnext_dense.config.checks.files import check_data, check_weights
from convnext_dense.config.checks.requirements import check_toolbox
from convnext_dense.config.inputs import checkpoint_inputs, config_inputs
from convnext_dense.config.options import load_config
from convnext_dense.config.trained import best_or_newest, config_of
from convnext_dense.engine.build import build_layer_decay, layer_decay_groups
from convnext_dense.engine.runner import run
from convnext_dense.errors import InputError
from convnext_dense.optim.layer_decay import (
    Layer,
    LayerDecayOptimWrapperConstructor,
    layers_of,
)
from convnext_dense.reports import pages
from convnext_dense.reports.run import curves, page
from convnext_dense.reports.run.hook import PAGE, RunReportHook, facts
from convnext_dense.utils import outputs
from convnext_dense.utils.outputs import Folder

# Of the files that are read from a work dir; '' is for last_checkpoint.
RUN_SUFFIXES = (".py", ".pth", ".json", "")


def write_report(
    work_dir: str | os.PathLike,
    checkpoint: str | None = None,
    out: str | os.PathLike | None = None,
    options: Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Validate a checkpoint of the run in ``work_dir`` and write the page.

    If the checkpoint or the data is missing, the page has the learning curves alone
    and says why.

    Args:
        work_dir: folder of a run, with its config and logs.
        checkpoint: path, or None for the best one, or else the last.
        out: the HTML file; None is ``work_dir/report.html``.
        options: ``--cfg-options``.
        overwrite: whether the page may replace a file that is not the report in
            ``work_dir``.

    Raises:
        InputError: ``work_dir`` is not the folder of a run; the page would replace a
            file that is read, or another one without ``overwrite``; or ``checkpoint``
            or ``options`` were given and the validation failed.
    """
    work_dir = Path(work_dir)
    shown = load_config(str(config_of(work_dir)), options)
    chosen = checkpoint or best_or_newest(work_dir)
    if chosen is None and not curves.read(work_dir).train:
        raise InputError(
            f"{work_dir} has no training log and no checkpoint: there is nothing to "
            "report"
        )
    file = Path(out or work_dir / PAGE)
    outputs.check(
        [outputs.Output("--out" if out else "", file)],
        [
            Folder(work_dir, RUN_SUFFIXES),
            *(checkpoint_inputs(chosen, overwrite) if chosen else ()),
            *config_inputs(shown, ("val",)),
        ],
        overwrite or (out is None and pages.is_ours(file)),
    )
    cfg = copy.deepcopy(shown)
    cfg.load_from, cfg.resume = str(chosen) if chosen else None, False
    if "visualizer" in cfg:
        cfg.visualizer.vis_backends = None  # do not log the validation as a run
    check_toolbox(cfg)
    check_weights(cfg, ())
    hook, run_facts, results = RunReportHook(), {}, "The run left no checkpoint."
    runner = None
    if chosen is not None:
        try:
            runner = _validate(cfg, hook)
            results, run_facts = hook.results(runner), facts(runner, ("val",))
        except Exception as error:  # models and data sets can raise anything
            if checkpoint or options:
                raise
            results = f"{chosen} could not be evaluated: {error}"
    if results is None:
        return  # rank 0 writes the page
    if isinstance(results, str):
        print_log(f"the report has curves only: {results}", "current")
    name = Path(chosen or "").name
    page.write(
        *(file, work_dir, shown, results, name, _layers(cfg, runner), run_facts),
        options or (),
    )
    print_log(f"wrote the report {file}", "current")


def _validate(cfg: Config, hook: RunReportHook) -> Runner:
    """Run one validation with ``hook``, in a temporary work dir.

    Raises:
        InputError: the data is missing; a report draws no data.
    """
    check_data(cfg.get("val_dataloader"), "val", drawn=True)
    with tempfile.TemporaryDirectory() as cfg.work_dir:
        return run(cfg, "val", hooks=[hook])


def _layers(cfg: Config, runner: Runner | None) -> list[Layer] | None:
    """The layers' learning rates; None without layer decay.

    Args:
        runner: has the model of ``cfg``; None if the run could not be validated.
    """
    wrapper = cfg.get("optim_wrapper", {})
    if wrapper.get("constructor") != LayerDecayOptimWrapperConstructor.__name__:
        return None
    try:
        if runner is None:
            return layers_of(build_layer_decay(cfg))
        return layers_of(layer_decay_groups(cfg, runner.model))
    except InputError as error:
        print_log(f"the report lacks the layers' learning rates: {error}", "current")
        return None
