"""Lets the files of a test appear under their names only when they are complete.

mmengine and the toolboxes write predictions, label maps and pictures directly under
their names. On a full disk that leaves half a file in place of an older one, and OpenCV
does not even raise an error.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend

from convnext_dense.errors import InputError
from convnext_dense.utils import files, partials
from convnext_dense.utils.images import write_image


class WholeFilesHook(Hook):
    """Changes the objects of one test that write files.

    Args:
        show_dir: the folder for mmseg's pictures, which are named like the images in
            it. mmengine would write ``vis_data/vis_image/test_NAME.jpg_1.png``.
    """

    def __init__(self, show_dir: str | None = None):
        self.show_dir = show_dir

    def before_test(self, runner: Runner) -> None:
        """Replace the methods that write, of these objects alone."""
        for metric in runner.test_loop.evaluator.metrics:
            if isinstance(metric, DumpResults):
                metric.compute_metrics = functools.partial(_dump, metric)
            elif getattr(metric, "output_dir", None):
                metric.process = _by_way_of(metric.process, metric, "output_dir")
        for hook in runner.hooks:
            if getattr(hook, "test_out_dir", None):
                draw = _by_way_of(hook.after_test_iter, hook, "test_out_dir")
                hook.after_test_iter = draw
        for backend in runner.visualizer._vis_backends.values():
            if isinstance(backend, LocalVisBackend):
                backend.experiment  # noqa: B018  (sets the folder, once)
                if self.show_dir:
                    backend.add_image = _picture_writer(Path(self.show_dir))
                else:
                    draw = _by_way_of(backend.add_image, backend, "_img_save_dir", 1)
                    backend.add_image = draw


def _picture_writer(folder: Path) -> Callable:
    """``LocalVisBackend.add_image`` that writes ``folder``/NAME.png."""
    written: set[str] = set()

    def add_image(name: str, image: np.ndarray, step: int = 0, **_: Any) -> None:
        stem = Path(name.removeprefix("test_")).stem
        if stem in written:  # images of two folders, or a.jpg and a.png
            stem = f"{stem}_{step}"
        written.add(stem)
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / f"{stem}.png", np.ascontiguousarray(image[..., ::-1]))

    return add_image


def _dump(metric: DumpResults, results: list) -> dict:
    """``DumpResults.compute_metrics``, by way of a partial file."""
    with files.whole(metric.out_file_path) as partial:
        mmengine.dump(results, partial)
    print_log(f"the predictions are in {metric.out_file_path}", "current")
    return {}


def _by_way_of(
    plain: Callable, writer: Any, attribute: str, least: int = 0
) -> Callable:
    """A method that writes into a temporary folder; its files are moved at the end.

    Args:
        plain: the method of ``writer``.
        attribute: the attribute of ``writer`` that is the folder to write into.
        least: how many files it writes, at least.

    The method raises an InputError if a file could not be written.
    """

    @functools.wraps(plain)
    def write(*args: Any, **kwargs: Any) -> Any:
        folder = Path(getattr(writer, attribute))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with partials.folder(folder) as temporary:
                setattr(writer, attribute, str(temporary))
                try:
                    result = plain(*args, **kwargs)
                finally:
                    setattr(writer, attribute, str(folder))
                written = [path for path in temporary.rglob("*") if path.is_file()]
                if len(written) < least:  # OpenCV does not raise an error
                    raise OSError("nothing was written; is the disk full?")
                for path in written:  # some metrics write into folders by class
                    target = folder / path.relative_to(temporary)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
        except OSError as error:
            raise InputError(
                f"{folder}: files could not be written: {error.strerror or error}"
            ) from error
        return result

    return write
