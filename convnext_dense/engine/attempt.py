"""Tidies up the work dir after a run that fails, and locks it while a run trains.

Other runs may use the same work dir: tests of its checkpoints, or a training whose
checkpoint is tested. So an attempt removes nothing but what it has written itself.
"""

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from mmengine.config import Config

from convnext_dense.config.checks.build_errors import explain_build
from convnext_dense.errors import InputError
from convnext_dense.utils import files, partials

from . import cleanup, trackers, work_dir_lock

_TIME = "%Y%m%d_%H%M%S"  # mmengine's names of log folders
_LOG_FOLDER = re.compile(r"\d{8}_\d{6}")
# Errors of the disk that a run meets although its work dir was writable at its start.
_OF_THE_DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS),
    *(errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM),
}


@contextmanager
def attempt(cfg: Config, mode: str, has_begun: Callable[[], bool]) -> Iterator[None]:
    """Lock the work dir of a training, and tidy up after a run that fails.

    A run that fails before its work begins leaves nothing new. At the end, also after
    an error, the run's log files are closed.

    Args:
        cfg: of the run. Its work dir is removed with the folders above it, as far as
            the run created them and nobody else has written into them.
        mode: 'train', 'val' or 'test'.
        has_begun: whether training, validation or testing has begun.

    Raises:
        InputError: ``work_dir`` cannot be written to; another training uses it; or a
            library raised another error while the run was being built.
    """
    work_dir = Path(cfg.work_dir)
    files.check_folder(work_dir, "the work dir")
    lock = work_dir_lock.locked(work_dir) if mode == "train" else nullcontext()
    with files.no_empty_folders(work_dir), lock:
        before = _entries(work_dir)
        try:
            with cleanup.let_go() as log_folders:
                yield
        except Exception as error:
            if has_begun():
                _explain_disk(error, work_dir)
                raise
            for path in _written(cfg, mode, log_folders) - before:
                partials.remove(path)
            for path in _entries(work_dir) - before:
                if _LOG_FOLDER.fullmatch(path.name):
                    with suppress(OSError):
                        path.rmdir()  # without a log yet
            if not hasattr(error, "exit_code"):  # raised by a library
                raise InputError(explain_build(error)) from error
            raise


def wait_for_free_name(work_dir: Path) -> None:
    """Wait until mmengine will name the run's log folder as no other in ``work_dir``.

    It names them by local time, in seconds, and would replace the log of a run that
    began in the same second, or an hour ago before clocks were put back.
    """
    while any(
        (work_dir / time.strftime(_TIME, time.localtime(time.time() + later))).exists()
        for later in (0, 1)
    ):
        time.sleep(0.05)


def _entries(folder: Path) -> set[Path]:
    return set(folder.iterdir()) if folder.is_dir() else set()


def _written(cfg: Config, mode: str, log_folders: set[Path]) -> set[Path]:
    """What a run writes into its work dir before its work begins.

    Args:
        log_folders: where its log files were.
    """
    work_dir = Path(cfg.work_dir)
    written = {work_dir / folder.name for folder in log_folders}
    training_now = mode != "train" and (work_dir / work_dir_lock.FILE).exists()
    if cfg.filename and not training_now:  # it may have written the same file
        written.add(work_dir / Path(cfg.filename).name)
    if mode == "train":
        # Splits of custom data; the checkpoint from which to resume.
        written |= {work_dir / "data", work_dir / "last_checkpoint"}
        written |= {work_dir / name for name in trackers.WRITTEN}
    return written - {work_dir}


def _explain_disk(error: Exception, work_dir: Path) -> None:
    """Raise an InputError if ``error`` comes from the disk of a run's work dir."""
    if not isinstance(error, OSError):
        return
    file = os.fspath(error.filename or "")
    inside = isinstance(file, str) and Path(file).is_relative_to(work_dir)
    if inside or (error.errno in _OF_THE_DISK and not file):
        raise InputError(
            f"{file or work_dir} could not be written: {error.strerror}. The run has "
            "stopped; its checkpoints are complete. Make the work dir writable, then "
            "continue with --resume"
        ) from error
