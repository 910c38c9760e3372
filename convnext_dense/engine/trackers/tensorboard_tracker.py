"""Event files for TensorBoard."""

import re
import uuid
from typing import Any

from mmengine.config import Config
from mmengine.visualization import TensorboardVisBackend
from mmengine.visualization.vis_backend import force_init_env

from .tracker import Tracker


class TensorboardTracker(Tracker, TensorboardVisBackend):
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
