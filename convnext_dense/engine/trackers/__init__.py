"""Experiment trackers of a run: TensorBoard, Weights & Biases, MLflow.

Each is a backend of mmengine's visualizer, which gives it the curves. ``TrackerHook``
adds the config, pictures of predictions and the run's report. A run that resumes goes
on in the tracker's run of the first start, whose name is in ``trackers.json`` in the
work dir.

The backends of mmengine are changed where current trackers need it, each with its
reason. Only the main process of a run writes: mmengine calls the backends there alone.
"""

import os
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook

from convnext_dense.errors import InputError

from .hook import TrackerHook
from .mlflow_tracker import MLflowTracker
from .tensorboard_tracker import TensorboardTracker
from .tracker import PROJECT, STATE, Start, Tracker
from .wandb_tracker import WandbTracker

WRITTEN = (STATE, "tensorboard", "wandb", "mlflow.db", "mlartifacts")  # in a work dir


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
    trackers: list[Tracker] = []
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
