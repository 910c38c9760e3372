"""A run of MLflow."""

import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.visualization import MLflowVisBackend
from mmengine.visualization.vis_backend import force_init_env

from convnext_dense.errors import InputError
from convnext_dense.utils.text import reason

from .tracker import PROJECT, Start, Tracker

_ATTEMPTS = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
# The settings that MLflow's table of runs shows; all of them are in its config.py.
_PARAMETERS = re.compile(
    r"model\.(type|backbone\..*)|train_cfg\..*|train_dataloader\.batch_size"
    r"|optim_wrapper\..*|randomness\.seed"
)


class MLflowTracker(Tracker, MLflowVisBackend):
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
