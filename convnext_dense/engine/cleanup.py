"""Closes what mmengine leaves open after a run, for processes that continue."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from mmengine.utils.manager import _release_lock
from mmengine.visualization import Visualizer


@contextmanager
def let_go() -> Iterator[set[Path]]:
    """Close and forget the loggers, visualizers, ... that are created inside.

    mmengine keeps them by name until the process ends: log files stay open, and the
    next run with a visualizer of the same name would write into the folder of this
    run. As everywhere in mmengine, only one run at a time is possible.

    Yields:
        the folders of the log files that were open; empty until the end.
    """
    log_folders: set[Path] = set()
    before = {
        manager: set(manager._instance_dict) for manager in _subclasses(ManagerMixin)
    }
    failed = True
    try:
        yield log_folders
        failed = False
    finally:
        for manager in _subclasses(ManagerMixin):
            for name in set(manager._instance_dict) - before.get(manager, set()):
                instance = manager._instance_dict.pop(name)
                log_folders |= _log_folders(instance)
                _close(instance, failed)
        if failed:
            _unlock()


def _subclasses(base: type[ManagerMixin]) -> Iterator[type[ManagerMixin]]:
    """``base`` and every class that inherits from it."""
    yield base
    for subclass in base.__subclasses__():
        yield from _subclasses(subclass)


def _unlock() -> None:
    """Release mmengine's lock.

    mmengine keeps the lock if it fails to build a logger or a visualizer; then no other
    thread could build one.
    """
    with suppress(RuntimeError):  # raised when this thread does not hold the lock
        while True:
            _release_lock()


def _log_folders(instance: ManagerMixin) -> set[Path]:
    """The folders of a logger's files."""
    return {
        Path(handler.baseFilename).parent
        for handler in getattr(instance, "handlers", ())
        if isinstance(handler, logging.FileHandler)
    }


def _close(instance: ManagerMixin, failed: bool) -> None:
    """Close a logger's files, and a visualizer's if the run has ``failed``."""
    if isinstance(instance, MMLogger):
        for handler in list(instance.handlers):
            instance.removeHandler(handler)
            handler.close()
    # After a run that did not fail, mmengine has closed the visualizer.
    elif isinstance(instance, Visualizer) and failed:
        with suppress(Exception):  # it must not hide why the run failed
            instance.close()


def stop_workers(runner: Runner) -> None:
    """End the data-loader workers that stay alive for a next epoch."""
    for split in ("train", "val", "test"):
        loop = getattr(runner, f"_{split}_loop", None)  # a config if never used
        loader = getattr(loop, "dataloader", None)
        endless = getattr(loop, "dataloader_iterator", None)  # of iteration-based runs
        for holder in (loader, endless):
            iterator = getattr(holder, "_iterator", None)
            shutdown = getattr(iterator, "_shutdown_workers", None)
            if holder is not None and shutdown is not None:
                shutdown()
                holder._iterator = None
