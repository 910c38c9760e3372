"""Finds the config and the checkpoint in a work dir, for commands that are given it."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmengine.logging import print_log

from convnext_dense.checkpoints import run_config
from convnext_dense.checkpoints.reading import read
from convnext_dense.checkpoints.sources import WEIGHTS
from convnext_dense.errors import InputError
from convnext_dense.utils import files

from .work_dir import is_dumped


def checkpoint_of(source: str) -> str:
    """The checkpoint that a user means: of a work dir, its best or newest.

    Args:
        source: a checkpoint, as for ``checkpoints.locate``, or the work dir of a run.

    Returns:
        The path of a checkpoint in the work dir. Anything else comes back as it is.

    Raises:
        InputError: the name is empty; or the work dir has checkpoints, and all are
            damaged.
    """
    if not source:  # of a shell's variable that is not set; Path would take this folder
        raise InputError("the name of the checkpoint is empty")
    folder = Path(source)
    if not os.path.isdir(folder) or _is_checkpoint(folder):
        return source
    file = best_or_newest(folder)
    if file is None:
        return source
    which = "best" if file.name.startswith("best_") else "newest"
    print_log(f"{source} is a work dir; its {which} checkpoint is {file}", "current")
    return str(file)


def config_and_checkpoint(
    config: str, checkpoint: str | None
) -> tuple[str, str | None]:
    """The config and the checkpoint that a user means: a work dir alone has both.

    Args:
        config: as for ``load_config``; or the work dir of a run.
        checkpoint: as for ``checkpoint_of``; None if the user names none.

    Returns:
        The checkpoint is None if ``config`` is not a work dir and none is named.

    Raises:
        InputError: the work dir has no config, or no checkpoint that can be read; or
            the checkpoint is of a run with another model or other test data.
    """
    if checkpoint is not None:
        return config, checkpoint_of(checkpoint)
    folder = Path(config)
    if not folder.is_dir():
        return config, None
    file = config_of(folder)
    checkpoint = checkpoint_of(config)
    if checkpoint == config and not _is_checkpoint(folder):
        raise InputError(f"{config} has no checkpoint yet: name one after {file}")
    _check_same_run(file, checkpoint)
    print_log(f"its config is {file}", "current")
    return str(file), checkpoint


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder is itself a checkpoint, of a hub or of FSDP."""
    return any(os.path.exists(folder / name) for name in (*WEIGHTS, ".metadata"))


def _check_same_run(config: Path, checkpoint: str) -> None:
    """Raise an InputError if a checkpoint has another model or data in its config.

    Two trainings may have used a work dir one after the other.
    """
    meta = read(checkpoint, "meta").get("meta") if os.path.isfile(checkpoint) else None
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    if not isinstance(text, str):
        return
    try:
        inside, beside = (
            run_config.parse(t, run_config.PREDICTION)
            for t in (text, files.read_text(config))
        )
    except run_config.NotData:
        return
    if inside != beside:
        raise InputError(
            f"{checkpoint} is not of the run whose config is {config}: its model or "
            "its test data is another. Name a config and a checkpoint of one run"
        )


def config_of(work_dir: Path) -> Path:
    """The newest config in ``work_dir``, of those that a run wrote if there are any.

    Raises:
        InputError: there is no such folder, or it has no config.
    """
    if not work_dir.is_dir():
        raise InputError(f"there is no folder {work_dir}: name the work dir of a run")
    configs = sorted(work_dir.glob("*.py"), key=lambda file: file.stat().st_mtime)
    # Scripts of the user may lie there, too.
    configs = [f for f in configs if is_dumped(files.read_text(f))] or configs
    if not configs:
        raise InputError(
            f"{work_dir} is not the work dir of a run: it has no config. A run of "
            "convnext-dense train writes its config (.py) beside its checkpoints"
        )
    return configs[-1]


def best_or_newest(work_dir: Path) -> Path | None:
    """The best checkpoint of a run, or else the newest; None if it has none.

    Damaged checkpoints are passed over, and the log names them.

    Raises:
        InputError: all are damaged.
    """
    damaged = []
    for file in _in_order(work_dir):
        try:
            read(file, "meta")
            return file
        except InputError as error:
            damaged.append(file.name)
            print_log(f"skipped: {error}", "current", logging.WARNING)
    if damaged:
        raise InputError(
            f"no checkpoint in {work_dir} is complete; damaged: {', '.join(damaged)}"
        )
    return None


def _in_order(work_dir: Path) -> Iterator[Path]:
    """The checkpoint files of a work dir: the best first, then from new to old."""

    def newest_first(pattern: str) -> list[Path]:
        paths = [path for path in work_dir.glob(pattern) if path.is_file()]
        return sorted(paths, key=lambda path: -path.stat().st_mtime_ns)

    yield from newest_first("best_*.pth")
    for file in newest_first("[!.]*.pth"):
        if not file.name.startswith("best_"):
            yield file
