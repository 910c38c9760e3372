"""The checkpoints of a run: whole, the older ones kept until the newer is there, and
the last good one found.

mmengine writes a checkpoint over its name, removes the previous one before, and goes
on from whatever the file ``last_checkpoint`` names. ``install`` changes the three, for
every run.
"""

import errno
import functools
import logging
import os
import shutil
import zipfile
from pathlib import Path

import torch
from mmengine import runner as mmengine_runners
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import _flexible_runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import runner as mmengine_runner

from convnext_dense.checkpoints.unpickling import unpickle
from convnext_dense.errors import InputError
from convnext_dense.utils import files
from convnext_dense.utils.distributed import on_main


def install() -> None:
    """Make mmengine keep checkpoints so."""
    plain = mmengine_checkpoint.save_checkpoint
    if hasattr(plain, "__wrapped__"):  # installed already
        return
    modules = (mmengine_checkpoint, mmengine_runners, mmengine_runner)
    save_checkpoint = _saving_whole(plain)
    for module in modules:
        module.save_checkpoint = save_checkpoint
    for module in (*modules, _flexible_runner):
        module.find_latest_checkpoint = find_latest_checkpoint
    for method in ("_save_checkpoint_with_step", "_save_best_checkpoint"):
        plain = getattr(CheckpointHook, method)
        setattr(CheckpointHook, method, _removing_after(plain))


def _saving_whole(plain):
    @functools.wraps(plain)
    def save_checkpoint(checkpoint, filename, file_client_args=None, backend_args=None):
        if "://" in filename or file_client_args:  # not a file of this disk
            return plain(checkpoint, filename, file_client_args, backend_args)
        path = Path(filename)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with files.whole(path) as partial, partial.open("wb") as file:
                _save(checkpoint, file)
        except InputError as error:
            free = shutil.disk_usage(path.parent).free / 1e9
            raise InputError(
                f"{error}; {free:.1f} GB are free there. The checkpoints before it "
                "are whole: make room, and go on with --resume"
            ) from error

    return save_checkpoint


def _save(checkpoint, file) -> None:
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:  # torch does not pass on what the system said
        if shutil.disk_usage(os.path.dirname(file.name)).free < 1e6:
            reason = os.strerror(errno.ENOSPC)
            raise OSError(errno.ENOSPC, reason) from error
        raise


class _Later:
    """A file backend that notes what it is to remove."""

    def __init__(self, backend):
        self._backend = backend
        self._files = []

    def __getattr__(self, name):
        return getattr(self.__dict__["_backend"], name)

    def remove(self, path) -> None:
        self._files.append((path, _identity(path)))

    rmtree = remove

    def remove_now(self) -> None:
        for path, identity in self._files:
            if _identity(path) != identity:
                continue  # it is the new one, under the same name
            if self._backend.isdir(path):
                self._backend.rmtree(path)
            else:
                self._backend.remove(path)


def _identity(path) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:  # not of this disk
        return None


def _removing_after(plain):
    @functools.wraps(plain)
    def save(self, *args, **kwargs):
        backend = getattr(self, "file_backend", None)
        if backend is None:  # validation without training, where nothing is saved
            plain(self, *args, **kwargs)
            return
        self.file_backend = later = _Later(backend)
        try:
            plain(self, *args, **kwargs)
        finally:
            self.file_backend = backend
        later.remove_now()

    return save


def find_latest_checkpoint(path: str) -> str | None:
    """The newest checkpoint of a run's folder that is whole, for every process.

    Each that is not is named in the log, with the reason.

    Args:
        path: the work dir.

    Raises:
        InputError: there are checkpoints, and none is whole.
    """
    return on_main(lambda: _find(Path(path)))


def _find(folder: Path) -> str | None:
    last, damaged = _last_saved(folder), []
    if last and last.is_dir():  # shards: mmengine's strategies know them
        return str(last)

    def iteration(file: Path) -> int | None:
        try:
            return _iteration(file)
        except InputError as error:
            damaged.append(file.name)
            print_log(f"skipped: {error}", "current", logging.WARNING)

    reached = iteration(last) if last else None
    chosen = last if reached is not None else None
    others = [f for f in folder.glob("[!.]*.pth") if f != last]
    for file in sorted(others, key=_time, reverse=True):
        if chosen and _time(file) <= _time(chosen):
            break
        # Written since, but not yet named as the last when the run was killed?
        here = iteration(file)
        if here is not None and (chosen is None or here > reached):
            chosen, reached = file, here
    if chosen is None and damaged:
        raise InputError(
            f"--resume: no checkpoint in {folder} is whole; damaged: "
            + ", ".join(damaged)
            + ". To start again, name another --work-dir or leave --resume out"
        )
    if chosen and chosen != last:  # the run may end without writing another
        with files.whole(folder / "last_checkpoint") as partial:
            partial.write_text(str(chosen))
    print_log(
        f"the run goes on from {chosen}"
        if chosen
        else f"nothing to resume in {folder}: the run starts",
        "current",
    )
    return str(chosen) if chosen else None


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns


def _last_saved(folder: Path) -> Path | None:
    try:
        name = (folder / "last_checkpoint").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not name:
        return None
    # The folder may have been moved since.
    return next((p for p in (Path(name), folder / Path(name).name) if p.exists()), None)


def _iteration(file: Path) -> int | None:
    """How far the run of ``file`` had come; None if it is weights alone.

    Raises:
        InputError: the file is damaged.
    """
    try:
        archive = zipfile.is_zipfile(file)
        if archive:
            with zipfile.ZipFile(file) as members:
                bad = members.testzip()  # torch does not look at the checksums
            if bad:
                raise EOFError(f"{bad} in it is not what was written")
        content = unpickle(str(file), mmap=archive)
    except Exception as error:  # a damaged file can raise anything
        raise InputError(f"{file} is damaged: {str(error) or repr(error)}") from error
    if not isinstance(content, dict) or not {"optimizer", "meta"} <= content.keys():
        return None
    return content["meta"]["iter"]
