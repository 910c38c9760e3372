"""Starts the trackers of a run, and gives them pictures and the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from convnext_dense.reports.run.hook import PAGE
from convnext_dense.utils.text import reason

from .tracker import Tracker

PICTURES = 4  # of each validation
LONGEST_SIDE = 640  # pixels of a picture


class TrackerHook(Hook):
    """Gives the trackers of a run pictures of predictions, and its report.

    The pictures are the first images of each validation, with what is predicted. An
    error in the hook is a warning in the log, and the run goes on.
    """

    priority = "LOWEST"  # after the report is written

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers
        self._samples: list = []

    def before_run(self, runner: Runner) -> None:
        """Start the trackers' runs, in the main process."""
        if not is_main_process():
            self._trackers = ()
        for tracker in self._trackers:
            # The visualizer closes it at the end, also if the next one cannot start.
            runner.visualizer._vis_backends[tracker.name] = tracker
            tracker.add_config(runner.cfg)

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the samples of the validation before."""
        self._samples = []

    before_test_epoch = before_val_epoch

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: Sequence = ()
    ) -> None:
        """Keep the first predictions."""
        if self._trackers:
            self._samples += outputs[: PICTURES - len(self._samples)]

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: Mapping | None = None) -> None:
        """Draw the samples and give the pictures to the trackers."""
        try:
            self._add_pictures(runner)
        except Exception as error:  # models and data sets of other projects may differ
            runner.logger.warning(f"the trackers get no pictures: {reason(error)}")
        self._samples = []

    after_test_epoch = after_val_epoch

    def _add_pictures(self, runner: Runner) -> None:
        from convnext_dense.reports.drawing import Drawer, shrink
        from convnext_dense.utils.images import read_rgb

        if not self._samples:
            return
        loop = runner.val_loop or runner.test_loop
        meta = loop.dataloader.dataset.metainfo
        drawer = Drawer(runner.cfg.default_scope, meta)
        for sample in self._samples:
            path = Path(sample.img_path)
            picture = drawer.prediction(read_rgb(path), sample.cpu())
            for tracker in self._trackers:
                tracker.add_image(
                    f"predictions/{path.stem}",
                    shrink(picture, LONGEST_SIDE),
                    runner.iter,
                )

    def after_train(self, runner: Runner) -> None:
        """Add the report; the tracker's run has come to its end."""
        report = Path(runner.work_dir) / PAGE
        for tracker in self._trackers:
            tracker.finished = True
            if not report.is_file():
                continue
            try:
                tracker.add_report(report)
            except Exception as error:  # a tracker can raise anything
                runner.logger.warning(
                    f"{tracker.name} did not take the report: {reason(error)}"
                )

    def after_test(self, runner: Runner) -> None:
        """Note that the tracker's run has come to its end."""
        for tracker in self._trackers:
            tracker.finished = True
