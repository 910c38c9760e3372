"""The page about a run, written when its training ends."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import collect_results, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from convnext_dense.optim.layer_decay import layers_of

PAGE = "report.html"


@HOOKS.register_module()
class RunReportHook(Hook):
    """Keeps the predictions of the latest validation and writes ``report.html``.

    ``tools/train.py`` adds it to every run; in another project,
    ``custom_hooks = [dict(type='RunReportHook')]``. Whatever goes wrong in it
    is a warning in the log: training goes on.
    """

    priority = "LOWEST"

    def __init__(self):
        self._records: list[dict] = []
        self._trouble: str | None = None

    def before_val_epoch(self, runner: Runner) -> None:
        self._records, self._trouble = [], None

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: Sequence = ()
    ) -> None:
        if self._trouble:
            return
        try:
            kind = _kind(runner)
            self._records += kind.records(outputs, runner.val_loop.evaluator)
        except Exception as error:  # of a model or a data set of any kind
            self._trouble = _said(error)
            runner.logger.warning(
                f"the run report will be without predictions: {self._trouble}"
            )

    def findings(self, runner: Runner):
        """What the latest validation showed, or why nothing is known; on rank 0.

        To be called by every rank.
        """
        if runner.val_loop is None:
            return "The run had no validation."
        dataset = runner.val_dataloader.dataset
        records = collect_results(self._records, len(dataset))
        if not is_main_process():
            return None
        if self._trouble:
            return f"The predictions could not be read: {self._trouble}"
        if not records:
            return "The run ended before its first validation."
        try:
            return _kind(runner).findings(records, dataset)
        except Exception as error:
            return f"The predictions could not be judged: {_said(error)}"

    def after_train(self, runner: Runner) -> None:
        try:
            findings = self.findings(runner)
            if is_main_process():
                self._write(runner, findings)
        except Exception as error:
            runner.logger.warning(
                f"the run report could not be written: {_said(error)}; "
                f"try again with tools/report.py {runner.work_dir}"
            )

    def _write(self, runner: Runner, findings) -> None:
        from . import page  # matplotlib takes its time

        file = Path(runner.work_dir) / PAGE
        groups = runner.optim_wrapper.optimizer.param_groups
        whole = getattr(runner.model, "unsharded", None)
        if whole is not None and "param_names" in groups[0]:  # FSDP's are parts
            named = dict(whole.named_parameters())
            groups = [
                {**group, "params": [named[name] for name in group["param_names"]]}
                for group in groups
            ]
        page.write(
            file,
            runner.work_dir,
            runner.cfg,
            findings,
            None,
            layers_of(groups) if "lr_scale" in groups[0] else None,
            facts(runner, ("train", "val")),
        )
        runner.logger.info(f"the run report is {file}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _kind(runner: Runner):
    """The module for the task of the run's toolbox."""
    if runner.cfg.get("default_scope") == "mmdet":
        from . import detection

        return detection
    from . import segmentation

    return segmentation


def facts(runner: Runner, splits: Sequence[str]) -> dict[str, str]:
    """Images of ``splits``, classes, parameters."""
    datasets = {
        split: getattr(runner, f"{split}_dataloader").dataset
        for split in splits
        if getattr(runner, f"{split}_loop") is not None
    }
    model = getattr(runner.model, "unsharded", None) or runner.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    told = {f"{split} images": f"{len(data):,}" for split, data in datasets.items()}
    for dataset in datasets.values():
        told["classes"] = str(len(dataset.metainfo["classes"]))
    return {**told, "parameters": f"{parameters / 1e6:.1f} M"}
