"""Make mmengine write a run's checkpoints whole, and remove old ones only afterwards.

mmengine writes a checkpoint directly under its name, and removes the previous one
before that. A run that is killed, or whose disk is full, then has no checkpoint left.
A run that resumes takes from its checkpoint the names of those to remove; here it
removes only its own.
"""

import functools
import logging
import os
import re
import shutil
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from mmengine import runner as mmengine_runners
from mmengine.dist import is_main_process
from mmengine.fileio.backends import BaseStorageBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import runner as mmengine_runner
from mmengine.runner._flexible_runner import FlexibleRunner

from convnext_dense.errors import InputError
from convnext_dense.utils import files, torch_files
from convnext_dense.utils.text import few

# Whether a config in the work dir stays; see ``kept_config``.
_KEPT: ContextVar[bool] = ContextVar("kept_config", default=False)


def save_whole() -> None:
    """Give a checkpoint its name only when it is complete on the disk."""
    plain = mmengine_checkpoint.save_checkpoint
    if hasattr(plain, "__wrapped__"):  # installed already
        return
    save_checkpoint = _saving_whole(plain)
    for module in (mmengine_checkpoint, mmengine_runners, mmengine_runner):
        module.save_checkpoint = save_checkpoint


def remove_after_saving() -> None:
    """Remove the previous checkpoint only after the new one is complete."""
    for name in ("_save_checkpoint_with_step", "_save_best_checkpoint"):
        plain = getattr(CheckpointHook, name)
        if not hasattr(plain, "__wrapped__"):
            setattr(CheckpointHook, name, _removing_after(plain))


def write_own_files() -> None:
    """Let a run write its config into a file of its work dir, and through no link."""
    for runner in (Runner, FlexibleRunner):
        if runner.dump_config.__module__ != __name__:  # not installed yet
            runner.dump_config = _detached(runner.dump_config)


@contextmanager
def kept_config() -> Iterator[None]:
    """Let a runner that is built in this context replace no config in its work dir.

    A test has flags of its own; the config there is the training's.
    """
    token = _KEPT.set(True)
    try:
        yield
    finally:
        _KEPT.reset(token)


def _detached(plain: Callable) -> Callable:
    """A runner's ``dump_config`` that detaches the file it writes into."""

    def dump_config(self: Runner | FlexibleRunner) -> None:
        if is_main_process() and self.cfg.filename:
            file = Path(self.work_dir, os.path.basename(self.cfg.filename))
            if _KEPT.get() and file.is_file():
                return
            files.detach(file)
        plain(self)

    return dump_config


def remove_own_only() -> None:
    """Let a run remove only its own checkpoints: by folder, and by the hook's names."""
    plain = CheckpointHook.before_train
    if not hasattr(plain, "__wrapped__"):
        CheckpointHook.before_train = _with_own_names(plain)


def _saving_whole(plain: Callable) -> Callable:
    """mmengine's ``save_checkpoint``, for local files by way of a partial file."""

    @functools.wraps(plain)
    def save_checkpoint(
        checkpoint: dict,
        filename: str,
        file_client_args: dict | None = None,
        backend_args: dict | None = None,
    ) -> None:
        if "://" in filename or file_client_args:  # not a local file
            plain(checkpoint, filename, file_client_args, backend_args)
            return
        path = Path(filename)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (
                files.whole(path) as partial,
                torch_files.open_to_write(partial) as file,
            ):
                torch.save(checkpoint, file)
        except InputError as error:
            free = shutil.disk_usage(path.parent).free / 1e9
            raise InputError(
                f"{error}; {free:.1f} GB are free there. The checkpoints before it "
                "are complete. Free some space, then continue with --resume"
            ) from error

    return save_checkpoint


class _RemovesLater:
    """A file backend that records what it shall remove until ``remove_now``."""

    def __init__(self, backend: BaseStorageBackend):
        self._backend = backend
        self._recorded: list[tuple[str, int | None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_backend"], name)

    def remove(self, path: str) -> None:
        self._recorded.append((path, _inode(path)))

    rmtree = remove

    def remove_now(self) -> None:
        for path, inode in self._recorded:
            if _inode(path) != inode:
                continue  # the new checkpoint has the same name
            if os.path.islink(path):
                os.unlink(path)  # and what it leads to stays
            elif self._backend.isdir(path):
                self._backend.rmtree(path)
            else:
                self._backend.remove(path)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:  # not a local file
        return None


def _removing_after(plain: Callable) -> Callable:
    """A method of ``CheckpointHook`` whose removals come after what it saves."""

    @functools.wraps(plain)
    def save(self: CheckpointHook, *args, **kwargs) -> None:
        backend = getattr(self, "file_backend", None)
        if backend is None:  # validation without training saves nothing
            plain(self, *args, **kwargs)
            return
        runner = args[0] if args else kwargs["runner"]
        if is_main_process():
            files.detach(Path(runner.work_dir, "last_checkpoint"))
        self.file_backend = later = _RemovesLater(backend)
        try:
            plain(self, *args, **kwargs)
        finally:
            self.file_backend = backend
        later.remove_now()

    return save


def _with_own_names(plain: Callable) -> Callable:
    """``CheckpointHook.before_train`` that trusts no name from a checkpoint."""

    @functools.wraps(plain)
    def before_train(self: CheckpointHook, runner: Runner) -> None:
        folder = self.out_dir or runner.work_dir
        if folder != runner.work_dir:  # as mmengine joins them
            folder = os.path.join(folder, Path(runner.work_dir).name)
        info = runner.message_hub.runtime_info
        if not _is_of(runner, folder):  # its names are those of another folder
            for key in [key for key in info if key.startswith(("best_ckpt", "keep_"))]:
                info[key] = [] if key.startswith("keep_") else None
        for key in [key for key in info if re.match("best_ckpt(_|$)", key)]:
            info[key] = _own_best(self, folder, info[key])
        # mmengine removes what exceeds max_keep_ckpts at once, also links' targets.
        kept = info.get("keep_ckpt_ids", [])
        if any(os.path.islink(_path(self, folder, number)) for number in kept):
            info["keep_ckpt_ids"] = [
                n for n in kept if not os.path.islink(_path(self, folder, n))
            ]
        plain(self, runner)

    return before_train


def _is_of(runner: Runner, folder: str) -> bool:
    """Whether a run goes on from a checkpoint of its own folders, or from none."""
    source = runner._load_from if runner._resume else None
    if not source:
        return True
    parent = os.path.realpath(os.path.dirname(source))
    return parent in (os.path.realpath(folder), os.path.realpath(runner.work_dir))


def _path(hook: CheckpointHook, folder: str, number: int) -> str:
    return os.path.join(folder, hook.filename_tmpl.format(number))


def _own_best(hook: CheckpointHook, folder: str, recorded: object) -> str | None:
    """The path in the run's folder of the best checkpoint so far.

    Args:
        folder: into which the hook writes.
        recorded: the path that the checkpoint from which the run resumes has for it.
            The folder may have been moved since.

    Returns:
        None if ``recorded`` is no name that the hook gives to a best checkpoint.
    """
    if not recorded:
        return None
    name = re.split(r"[/\\]", str(recorded))[-1]
    numbered = "".join(
        re.escape(text) + ("" if field is None else r"\d+")
        for text, field, *_ in string.Formatter().parse(hook.filename_tmpl)
    )
    path = os.path.join(folder, name)
    is_own = re.fullmatch(f"best_.+_{numbered}", name) is not None
    if not is_own or str(recorded) != path:
        print_log(
            f"the checkpoint calls {few([recorded])} the run's best checkpoint so far; "
            + (f"the run takes {path}" if is_own else "the run leaves it as it is"),
            "current",
            logging.WARNING,
        )
    return path if is_own else None
