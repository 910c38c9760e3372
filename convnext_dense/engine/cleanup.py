"""What mmengine leaves behind a run, which matters to a process that goes on."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from mmengine.utils.manager import _release_lock
from mmengine.visualization import Visualizer


@contextmanager
def let_go() -> Iterator[None]:
    """Let go of the loggers, visualizers, ... that are made inside, and close them.

    mmengine keeps them by name for as long as the process lives: log files stay open,
    and a next run with a visualizer of the same name would write into the folder of
    this one. There can be only one run at a time, as everywhere in mmengine.
    """
    before = {kind: set(kind._instance_dict) for kind in _kinds()}
    failed = True
    try:
        yield
        failed = False
    finally:
        for kind in _kinds():
            for name in set(kind._instance_dict) - before.get(kind, set()):
                _close(kind._instance_dict.pop(name), failed)
        if failed:
            _unlock()


def _kinds(kind: type = ManagerMixin) -> Iterator[type]:
    yield kind
    for heir in kind.__subclasses__():
        yield from _kinds(heir)


def _unlock() -> None:
    """Let other threads run: mmengine keeps a lock if it could not build a logger or a
    visualizer."""
    with suppress(RuntimeError):  # once it is no longer, or was never, this thread's
        while True:
            _release_lock()


def _close(instance: ManagerMixin, failed: bool) -> None:
    if isinstance(instance, MMLogger):
        for handler in list(instance.handlers):
            instance.removeHandler(handler)
            handler.close()
    elif isinstance(instance, Visualizer) and failed:  # else mmengine has closed it
        with suppress(Exception):  # it must not hide why the run failed
            instance.close()


def stop_workers(runner: Runner) -> None:
    """End the data-loader workers that would stay for a next epoch."""
    for split in ("train", "val", "test"):
        loop = getattr(runner, f"_{split}_loop", None)  # perhaps still a config
        loader = getattr(loop, "dataloader", None)
        endless = getattr(loop, "dataloader_iterator", None)  # of a run by iterations
        for holder in (loader, endless):
            iterator = getattr(holder, "_iterator", None)
            if hasattr(iterator, "_shutdown_workers"):
                iterator._shutdown_workers()
                holder._iterator = None
