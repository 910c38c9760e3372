"""Train, validate or test by a config, with either toolbox."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from convnext_dense import checkpoints
from convnext_dense.config import checks
from convnext_dense.config.checks.build_errors import explain_build
from convnext_dense.config.checks.channels import check_channels
from convnext_dense.config.checks.data_errors import empty_dataset, explain_data
from convnext_dense.errors import InputError, NotFiniteError
from convnext_dense.reports.run.hook import RunReportHook
from convnext_dense.utils import files

from . import cleanup, launch
from .build import build_model
from .exact_resume.hook import ExactResumeHook
from .machine import fit_to_machine
from .watch import batches
from .watch.hook import WatchHook

TRAINING_HOOKS = (WatchHook, ExactResumeHook, RunReportHook)


def run(
    cfg: Config,
    mode: str,
    prepare: Callable[[], None] | None = None,
    hooks: Sequence[Hook] = (),
) -> Runner:
    """Train, validate or test; a start that fails leaves nothing in the work dir.

    Log files and data-loader workers are closed at the end, whatever it is.

    Args:
        mode: 'train', which is watched, can be resumed exactly, and ends with the
            run's page, 'val' or 'test'.
        prepare: called first; may write to the work dir and change ``cfg``.
        hooks: besides those of ``cfg``.

    Raises:
        InputError: something that ``cfg`` names is not there or not what it
            should be.
        LostProcessError: another process of the run has ended.
    """
    start = _Start(whole=mode != "train" or cfg.get("resume", False))
    with (
        launch.joined(cfg),
        _nothing_left_on_failure(Path(cfg.work_dir), start),
        cleanup.let_go(),
    ):
        runner = build_runner(cfg, mode, prepare)
        runner.register_hook(start, priority="HIGHEST")
        if mode == "train":
            present = set(map(type, runner.hooks))
            added = [hook for hook in TRAINING_HOOKS if hook not in present]
            hooks = [*(hook() for hook in added), *hooks]
        for hook in hooks:
            runner.register_hook(hook)
        try:
            getattr(runner, mode)()
        finally:
            cleanup.stop_workers(runner)
    return runner


def replay(cfg: Config, file: str) -> None:
    """Run a batch that was not finite again, and print what comes of it.

    Raises:
        InputError: the file is no batch of ``cfg``'s model.
        NotFiniteError: it is not finite again.
    """
    fit_to_machine(cfg)
    lines, finite = batches.replay(cfg, build_model(cfg, "cpu"), file)
    if not finite:
        raise NotFiniteError("\n".join(lines))
    print("\n".join(lines))


class _Start(Hook):
    """Looks at the checkpoint before it is used, and notes when work begins."""

    def __init__(self, whole: bool):
        self.whole = whole  # a head that starts from nothing is an error
        self.over = False

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not isinstance(checkpoint, Mapping):
            content = type(checkpoint).__name__
            raise InputError(f"{runner._load_from} holds a {content}, not weights")
        weights = checkpoint.get("state_dict", checkpoint)
        if runner._resume and not {"meta", "optimizer"} <= set(checkpoint):
            raise InputError(
                f"--resume: {checkpoints.source_of(weights)} is not of a run: it has "
                "weights but no optimizer state. To start from its weights: "
                "--cfg-options load_from=FILE"
            )
        if self.whole:
            checkpoints.require_whole(runner.model, weights)

    def before_train(self, runner) -> None:
        self.over = True

    before_val = before_train  # in training nothing new
    before_test = before_train


def build_runner(
    cfg: Config, mode: str, prepare: Callable[[], None] | None = None
) -> Runner:
    """A Runner with its data sets built, ready for ``train()`` or the like.

    With a launcher, to be called in ``launch.joined``.

    Args:
        mode: 'train', 'val' or 'test'.
        prepare: called between the checks and building, as in ``run``.

    Raises:
        InputError: something that ``cfg`` names is not there or not what it
            should be.
    """
    splits = _splits(mode)
    checks.check(cfg, splits, data_files=prepare is None)
    fit_to_machine(cfg)
    if prepare:
        prepare()
    try:
        build = RUNNERS.build if "runner_type" in cfg else Runner.from_cfg
        runner = build(cfg)
        check_channels(runner.model)
        for split in splits:  # a loop builds its data set when first asked for
            loop = getattr(runner, f"{split}_loop")
            empty = empty_dataset(loop.dataloader.dataset) if loop else None
            if empty is not None:
                where = empty.ann_file or ", ".join(empty.data_prefix.values())
                raise InputError(
                    explain_data(cfg, splits) or f"the {split} data is empty: {where}"
                )
    except InputError:
        raise
    except Exception as error:  # whatever a library can raise
        trouble = explain_data(cfg, splits) or explain_build(error)
        raise InputError(trouble) from error
    return runner


def _splits(mode: str) -> tuple[str, ...]:
    """Those whose data a run in this mode uses."""
    return ("train", "val") if mode == "train" else (mode,)


@contextmanager
def _nothing_left_on_failure(work_dir: Path, start: _Start) -> Iterator[None]:
    """Remove the folders that a start that failed made: the log's and those above."""
    files.check_folder(work_dir, "the work dir")
    before = set(work_dir.iterdir()) if work_dir.is_dir() else set()
    absent = [path for path in (work_dir, *work_dir.parents) if not path.exists()]
    try:
        yield
    except Exception as error:
        if start.over:
            raise
        made = absent[-1:] or set(work_dir.iterdir()) - before
        for path in made:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if not hasattr(error, "exit_code"):  # a library's, while all was being built
            raise InputError(explain_build(error)) from error
        raise
