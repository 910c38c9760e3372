"""Experiment trackers of a run: TensorBoard, Weights & Biases, MLflow.

Each is a backend of mmengine's visualizer, which gives it the curves. ``TrackerHook``
adds the config, pictures of predictions and the run's report. A run that resumes
goes on in the tracker's run of the first start, whose name is in ``trackers.json`` in
the work dir.

The backends of mmengine are changed where current trackers need it, each with its
reason. Only the main process of a run writes: mmengine calls the backends there alone.
"""

import json
import logging
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.visualization import (
    MLflowVisBackend,
    TensorboardVisBackend,
    WandbVisBackend,
)
from mmengine.visualization.vis_backend import BaseVisBackend, force_init_env

from convnext_dense.errors import InputError
from convnext_dense.reports.run.hook import PAGE
from convnext_dense.utils import files
from convnext_dense.utils.json_files import read_json
from convnext_dense.utils.text import reason

STATE = "trackers.json"  # in the work dir: the tracker's run, by tracker
WRITTEN = (STATE, "tensorboard", "wandb", "mlflow.db", "mlartifacts")  # in a work dir
PICTURES = 4  # of each validation
LONGEST_SIDE = 640  # pixels of a picture
PROJECT = "convnext_dense"  # of wandb, and the experiment of MLflow
_ATTEMPTS = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
# The settings that MLflow's table of runs shows; all of them are in its config.py.
_PARAMETERS = re.compile(
    r"model\.(type|backbone\..*)|train_cfg\..*|train_dataloader\.batch_size"
    r"|optim_wrapper\..*|randomness\.seed"
)


def use_trackers(
    cfg: Config,
    mode: str,
    tensorboard: bool = False,
    wandb: str | None = None,
    mlflow: str | None = None,
) -> list[Hook]:
    """The hooks for ``--tensorboard``, ``--wandb`` and ``--mlflow``.

    The config stays as it is: other commands that read it from the work dir, or from a
    checkpoint, log nothing.

    Args:
        cfg: as ``load_config`` returns it, with ``resume`` as the run will have it.
        mode: 'train' or 'test'. A test is a tracker's run of its own.
        tensorboard: whether to write event files into the work dir.
        wandb: the project; '' is ``WANDB_PROJECT`` or else ``PROJECT``.
        mlflow: the tracking URI; '' is ``MLFLOW_TRACKING_URI``, or else a database in
            the work dir.

    Raises:
        InputError: a tracker's package is not installed.
    """
    start = Start(Path(cfg.work_dir), bool(cfg.get("resume")), mode == "train")
    trackers: list[_Tracker] = []
    if tensorboard:
        _require("--tensorboard", "tensorboard", "tensorboard")
        trackers.append(TensorboardTracker(start))
    if wandb is not None:
        _require("--wandb", "wandb", "wandb")
        project = wandb or os.environ.get("WANDB_PROJECT") or PROJECT
        trackers.append(WandbTracker(start, project))
    if mlflow is not None:
        _require("--mlflow", "mlflow", "mlflow")
        uri = mlflow or os.environ.get("MLFLOW_TRACKING_URI") or ""
        if not uri or uri.startswith("sqlite:"):  # mlflow-skinny has no database
            _require("--mlflow with a database", "sqlalchemy", "mlflow")
        trackers.append(MLflowTracker(start, uri))
    return [TrackerHook(trackers)] if trackers else []


def _require(flag: str, module: str, package: str) -> None:
    if find_spec(module) is None:
        raise InputError(
            f"{flag} needs a package that is not installed: pip install {package}"
        )


class Start(NamedTuple):
    """One start of a run.

    Attributes:
        work_dir: of the run.
        resume: whether to go on in the tracker's run of the work dir.
        training: whether it trains; the tracker's run of a test is not continued.
    """

    work_dir: Path
    resume: bool
    training: bool

    @property
    def title(self) -> str:
        """How a tracker's page calls the run."""
        name = self.work_dir.absolute().name
        return name if self.training else f"{name} (test)"


class _Tracker(BaseVisBackend):
    """What the backends share."""

    name: str

    def __init__(self, start: Start):
        super().__init__(str(start.work_dir))
        self._start = start
        self.finished = False  # whether the run came to its end

    def _earlier(self) -> str | None:
        """The tracker's run that this one continues, if it does."""
        file = self._start.work_dir / STATE
        if not (self._start.resume and self._start.training and file.is_file()):
            return None
        state = read_json(file)
        run = state.get(self.name) if isinstance(state, dict) else None
        return run if isinstance(run, str) else None

    def _remember(self, run: str) -> None:
        """Note the tracker's run for later starts."""
        if not self._start.training:
            return
        file = self._start.work_dir / STATE
        state = read_json(file) if file.is_file() else {}
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {**(state if isinstance(state, dict) else {}), self.name: run}
        with files.whole(file) as partial:
            partial.write_text(json.dumps(content), encoding="utf-8")

    def add_report(self, file: Path) -> None:
        """Add the run's report, an HTML file, if the tracker keeps files."""


class TensorboardTracker(_Tracker, TensorboardVisBackend):
    """Event files in ``WORK_DIR/tensorboard/START``.

    mmengine's backend writes into the folder of each start, where the curves of a run
    that resumes are two, and writes the config as Markdown, which loses its lines.
    """

    name = "tensorboard"

    def _init_env(self) -> None:
        folder = self._earlier()
        if folder is None or not re.fullmatch(r"tensorboard/\w+", folder):
            folder = f"tensorboard/{uuid.uuid4().hex[:8]}"
            self._remember(folder)
        self._save_dir = str(self._start.work_dir / folder)
        super()._init_env()

    @force_init_env
    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Write the config as text, line by line."""
        lines = config.pretty_text.splitlines()
        self._tensorboard.add_text("config", "\n".join(f"    {line}" for line in lines))


class WandbTracker(_Tracker, WandbVisBackend):
    """A run of Weights & Biases; with ``WANDB_MODE=offline``, a folder.

    mmengine's backend uploads every Python file below the current folder, fails when a
    run resumes with another config, and numbers training steps and validations by the
    order in which they are logged. Here ``iter`` is the axis of all curves.

    Args:
        project: name of the project.
    """

    name = "wandb"

    def __init__(self, start: Start, project: str):
        super().__init__(start)
        self._project = project
        self._iteration = 0

    def _init_env(self) -> None:
        import wandb

        run = self._earlier() or uuid.uuid4().hex[:8]
        self._start.work_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=self._project,
                id=run,
                resume="allow",
                name=self._start.title,
                dir=str(self._start.work_dir),
                job_type="train" if self._start.training else "test",
            )
        except wandb.Error as error:  # no account, no network
            said = str(error).strip().rstrip(".")
            raise InputError(
                f"--wandb: the run could not be started: {said}. Run `wandb login`, or "
                "set WANDB_MODE=offline and run `wandb sync` later"
            ) from error
        self._wandb = wandb
        self._remember(run)
        self._run.define_metric("*", step_metric="iter")

    @force_init_env
    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Record the config's settings."""
        self._run.config.update(config.to_dict(), allow_val_change=True)

    @force_init_env
    def add_image(
        self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any
    ) -> None:
        """Record a picture, (H, W, 3) RGB uint8."""
        self._run.log({name: self._wandb.Image(image), "iter": self._iteration})

    @force_init_env
    def add_scalars(
        self,
        scalar_dict: dict,
        step: int = 0,
        file_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Record what was logged; validations have no ``iter`` of their own."""
        self._iteration = scalar_dict.get("iter", self._iteration)
        self._run.log({**scalar_dict, "iter": self._iteration})

    def add_report(self, file: Path) -> None:
        """Add the report as an artifact."""
        artifact = self._wandb.Artifact(f"report-{self._run.id}", type="report")
        artifact.add_file(str(file))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        """End the tracker's run, as failed if the run did not come to its end."""
        if hasattr(self, "_run"):
            self._run.finish(exit_code=0 if self.finished else 1)


class MLflowTracker(_Tracker, MLflowVisBackend):
    """A run of MLflow.

    mmengine's backend stores into files of a format that MLflow 3 refuses, fails when
    a run resumes, a metric's name has other characters than MLflow's or the server is
    lost, gives pictures names without an ending, and copies all logs of a work dir.

    Args:
        uri: the tracking URI; '' is a database in the work dir.
    """

    name = "mlflow"

    def __init__(self, start: Start, uri: str = ""):
        super().__init__(start)
        self._uri = uri
        self._lost = False

    def _init_env(self) -> None:
        import mlflow

        self._start.work_dir.mkdir(parents=True, exist_ok=True)
        place = self._start.work_dir.absolute()
        uri = self._uri or f"sqlite:///{place / 'mlflow.db'}"
        location = None if self._uri else (place / "mlartifacts").as_uri()
        if uri.startswith("file:") or "://" not in uri:
            # MLflow 3 takes files only if it is told to; this URI asks for them.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        # MLflow tries for four minutes; a wrong address is to be reported at once.
        own_attempts = _ATTEMPTS in os.environ
        os.environ.setdefault(_ATTEMPTS, "1")
        try:
            mlflow.set_tracking_uri(uri)
            if mlflow.get_experiment_by_name(PROJECT) is None:
                mlflow.create_experiment(PROJECT, artifact_location=location)
            mlflow.set_experiment(PROJECT)
            run = self._begin(mlflow)
        except Exception as error:  # of MLflow, of its database, of the network
            raise InputError(
                f"--mlflow: the run could not be started at {uri} ({reason(error)}). "
                "Give the address of a server that runs, or a file: "
                "--mlflow sqlite:///mlflow.db"
            ) from error
        finally:
            if not own_attempts:
                del os.environ[_ATTEMPTS]
        self._mlflow = mlflow
        self._remember(run.info.run_id)
        self._known = dict(run.data.params)

    def _begin(self, mlflow: Any) -> Any:
        """Start MLflow's run, or continue that of an earlier start."""
        earlier = self._earlier()
        if earlier is not None:
            try:
                return mlflow.start_run(run_id=earlier)
            except mlflow.MlflowException as error:  # it was removed, or is elsewhere
                print_log(f"MLflow's run {earlier} cannot go on: {error}", "current")
        return mlflow.start_run(run_name=self._start.title)

    @force_init_env
    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Record the config as a file, and its main settings as parameters."""
        self._mlflow.log_text(config.pretty_text, "config.py")
        settings = self._flatten(config.to_dict())
        new = {
            name: value
            for name, value in settings.items()
            if _PARAMETERS.fullmatch(name) and name not in self._known
        }
        self._mlflow.log_params(new)  # MLflow's parameters cannot change

    @force_init_env
    def add_image(
        self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any
    ) -> None:
        """Record a picture, (H, W, 3) RGB uint8."""
        self._log("log_image", image, f"{_name(name)}_{step}.png")

    @force_init_env
    def add_scalars(
        self,
        scalar_dict: dict,
        step: int = 0,
        file_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Record what was logged."""
        metrics = {_name(name): value for name, value in scalar_dict.items()}
        self._log("log_metrics", metrics, step)

    def _log(self, function: str, *args: Any) -> None:
        """Call a function of MLflow; after an error, call none any more.

        MLflow tries again for minutes before it raises an error, each time.
        """
        if self._lost:
            return
        try:
            getattr(self._mlflow, function)(*args)
        except Exception as error:  # of its server or its disk
            self._lost = True
            print_log(
                f"MLflow gets no more of this run, which goes on: {reason(error)}",
                "current",
                logging.WARNING,
            )

    def add_report(self, file: Path) -> None:
        """Add the report as an artifact."""
        self._log("log_artifact", str(file))

    def close(self) -> None:
        """End MLflow's run, as failed if the run did not come to its end."""
        if hasattr(self, "_mlflow"):
            self._log("end_run", "FINISHED" if self.finished else "FAILED")


def _name(name: str) -> str:
    """The name of a metric or a picture with the characters that MLflow has."""
    return re.sub(r"[^\w./ -]", "_", name)


class TrackerHook(Hook):
    """Gives the trackers of a run pictures of predictions, and its report.

    The pictures are the first images of each validation, with what is predicted. An
    error in the hook is a warning in the log, and the run goes on.
    """

    priority = "LOWEST"  # after the report is written

    def __init__(self, trackers: Sequence[_Tracker]) -> None:
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
