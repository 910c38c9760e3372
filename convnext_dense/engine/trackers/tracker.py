"""What the trackers share: where a run is, and which tracker's run it continues."""

import json
from pathlib import Path
from typing import NamedTuple

from mmengine.visualization.vis_backend import BaseVisBackend

from convnext_dense.utils import files
from convnext_dense.utils.json_files import read_json

STATE = "trackers.json"  # in the work dir: the tracker's run, by tracker
PROJECT = "convnext_dense"  # of wandb, and the experiment of MLflow


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


class Tracker(BaseVisBackend):
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
