"""A run of Weights & Biases."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.visualization import WandbVisBackend
from mmengine.visualization.vis_backend import force_init_env

from convnext_dense.errors import InputError

from .tracker import Start, Tracker


class WandbTracker(Tracker, WandbVisBackend):
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
            advice = (
                "Name another project: --wandb PROJECT"
                if "project name" in said.lower()
                else "Run `wandb login`, or set WANDB_MODE=offline and run "
                "`wandb sync` later"
            )
            raise InputError(
                f"--wandb: the run could not be started: {said}. {advice}"
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
