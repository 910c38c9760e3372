"""Writes the page about a run when its training ends.

``import convnext_dense`` imports this module, so toolboxes and matplotlib are imported
only when they are needed.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mmengine.dist import collect_results, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from convnext_dense.errors import InputError
from convnext_dense.optim.layer_decay import layers_of
from convnext_dense.utils.text import reason

if TYPE_CHECKING:
    from .results import ValidationResults

PAGE = "report.html"
MOST_CLASSES = 5000  # the confusion matrix has their square


@HOOKS.register_module()
class RunReportHook(Hook):
    """Keeps the predictions of the latest validation, and writes ``report.html``.

    ``convnext-dense train`` adds it to every run; in another project, write
    ``custom_hooks = [dict(type='RunReportHook')]``. An error in the hook is a warning
    in the log, and training goes on.
    """

    priority = "LOWEST"

    def __init__(self) -> None:
        self._records: list[dict] = []
        self._error: str | None = None
        self._has_worked = False  # trained or validated, in this process

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the predictions of the validation before."""
        self._has_worked = True
        self._records, self._error = [], None

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: Sequence = ()
    ) -> None:
        """Keep the predictions of a batch."""
        if self._error:
            return
        try:
            task = _task_module(runner)
            self._records += task.records(outputs, runner.val_loop.evaluator)
        except Exception as error:  # models and data sets of other projects may differ
            self._error = reason(error)
            runner.logger.warning(
                f"the run report will have no predictions: {self._error}"
            )

    def results(self, runner: Runner) -> "ValidationResults | str | None":
        """The results of the latest validation.

        Every rank must call it.

        Returns:
            on rank 0 the results, or the reason why there are none; else None.
        """
        if runner.val_loop is None:
            return "The run had no validation."
        dataset = runner.val_dataloader.dataset
        records = collect_results(self._records, len(dataset))
        if not is_main_process():
            return None
        if self._error:
            return f"The predictions could not be read: {self._error}"
        if not records:
            return "This start of the run ended before its first validation."
        if len(dataset.metainfo["classes"]) > MOST_CLASSES:
            return f"The data has more than {MOST_CLASSES} classes."
        try:
            return _task_module(runner).summarize(records, dataset)
        except Exception as error:
            return (
                f"The predictions could not be compared to the truth: {reason(error)}"
            )

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Note that the run trains."""
        self._has_worked = True

    def after_train(self, runner: Runner) -> None:
        """Write how training ended into the log, and write the page.

        A start that had nothing left to train leaves the page of an earlier one.
        """
        from . import progress

        try:
            runner.logger.info(progress.last_line(runner))
            results = self.results(runner)
            if not self._has_worked and (Path(runner.work_dir) / PAGE).exists():
                return
            if results is not None and is_main_process():
                self._write(runner, results)
        except Exception as error:
            runner.logger.warning(
                f"the run report could not be written: {reason(error)}; "
                f"try again with convnext-dense report {runner.work_dir}"
            )

    def _write(self, runner: Runner, results: "ValidationResults | str") -> None:
        from .. import pages
        from . import page

        file = Path(runner.work_dir) / PAGE
        if file.exists() and not pages.is_ours(file):
            raise InputError(f"{file} is not a report: move it to another place")
        groups = runner.optim_wrapper.optimizer.param_groups
        whole = getattr(runner.model, "unsharded", None)
        if whole is not None and "param_names" in groups[0]:
            # FSDP's groups have shards; the whole model's parameters have full sizes.
            named = dict(whole.named_parameters())
            groups = [
                {**group, "params": [named[name] for name in group["param_names"]]}
                for group in groups
            ]
        page.write(
            file,
            runner.work_dir,
            runner.cfg,
            results,
            None,
            layers_of(groups) if "lr_scale" in groups[0] else None,
            facts(runner, ("train", "val")),
        )
        runner.logger.info(f"the run report is {file}")


def _task_module(runner: Runner) -> ModuleType:
    """``detection`` or ``segmentation``, by the toolbox of the run."""
    if runner.cfg.get("default_scope") == "mmdet":
        from . import detection

        return detection
    from . import segmentation

    return segmentation


def facts(runner: Runner, splits: Sequence[str]) -> dict[str, str]:
    """The numbers of images in ``splits``, of classes and of parameters, as text."""
    datasets = {
        split: getattr(runner, f"{split}_dataloader").dataset
        for split in splits
        if getattr(runner, f"{split}_loop") is not None
    }
    model = getattr(runner.model, "unsharded", None) or runner.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    numbers = {f"{split} images": f"{len(data):,}" for split, data in datasets.items()}
    for dataset in datasets.values():
        numbers["classes"] = str(len(dataset.metainfo["classes"]))
    return {**numbers, "parameters": f"{parameters / 1e6:.1f} M"}
