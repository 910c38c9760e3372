"""Trains, validates or tests with a config of either toolbox.

The way of a config: a command loads it, ``build_runner`` checks it once, fits it to the
machine once and builds a Runner, and ``run`` runs that Runner.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from convnext_dense.checkpoints.reading import as_dict
from convnext_dense.config import checks
from convnext_dense.config.checks.build_errors import explain_build
from convnext_dense.config.checks.channels import check_channels
from convnext_dense.config.checks.custom_keys import check_custom_keys
from convnext_dense.config.checks.data_errors import empty_dataset, explain_data
from convnext_dense.config.checks.names import check_names
from convnext_dense.config.flags import NOTHING, CommandLine
from convnext_dense.errors import InputError, NotFiniteError
from convnext_dense.patches.checkpoint_saving import kept_config
from convnext_dense.patches.console import short_console
from convnext_dense.reports.run.hook import RunReportHook

from . import cleanup, launch, own_config
from .attempt import attempt, wait_for_free_name
from .build import build_model
from .exact_resume.hook import ExactResumeHook
from .machine import fit_to_machine
from .short_runs import ShortRunHook, fit_warmup
from .summary import SummaryHook
from .watch import batches
from .watch.hook import WatchHook

TRAINING_HOOKS = (WatchHook, ExactResumeHook, RunReportHook)


def run(
    cfg: Config,
    mode: str,
    prepare: Callable[[], None] | None = None,
    hooks: Sequence[Hook] = (),
    command_line: CommandLine = NOTHING,
) -> Runner:
    """Check a config, build a Runner and run it.

    Log files and data-loader workers are closed at the end, also after an error. A run
    that fails before its work begins leaves no new files in the work dir. While it
    trains, no other training can use the work dir (``work_dir_lock``).

    Args:
        cfg: as ``load_config`` returns it; it is changed to fit the machine.
        mode: 'train', 'val' or 'test'. Training is watched (``WatchHook``), can be
            resumed exactly (``ExactResumeHook``), and ends with the run's page
            (``RunReportHook``).
        prepare: called after the checks and before anything is built; it may write to
            the work dir and change ``cfg``. Custom data is prepared by it.
        hooks: added to the hooks of ``cfg``.
        command_line: what of ``cfg`` the command line has set.

    Returns:
        The Runner after its run.

    Raises:
        InputError: the config, or a file that it names, is wrong.
        NotFiniteError: training stopped because losses or gradients are not finite.
        LostProcessError: another process of the run has ended.
        SystemExit: a signal stopped training, and a checkpoint is saved (code 75).

    Example::

        cfg = load_config("configs/seg/upernet_convnext_atto_shapes.py")
        runner = run(cfg, "train")
    """
    start = _Start(whole=mode != "train" or cfg.get("resume", False))
    with launch.joined(cfg), short_console(), attempt(cfg, mode, lambda: start.over):
        runner = build_runner(cfg, mode, prepare)
        runner.register_hook(start, priority="HIGHEST")
        lines = list(command_line.lines)
        if mode == "train":
            present = set(map(type, runner.hooks))
            missing = [hook for hook in TRAINING_HOOKS if hook not in present]
            lines += fit_warmup(runner, command_line.settings)
            hooks = [ShortRunHook(), *(hook() for hook in missing), *hooks]
        for hook in (SummaryHook(mode, lines, command_line.settings), *hooks):
            runner.register_hook(hook)
        try:
            getattr(runner, mode)()
        finally:
            cleanup.stop_workers(runner)
            for hook in runner.hooks:
                if isinstance(hook, ExactResumeHook):
                    hook.stop_listening()
    return runner


def replay(cfg: Config, file: str) -> None:
    """Repeat the step of a batch that was not finite, and print its losses.

    Args:
        cfg: the config of the run.
        file: ``WORK_DIR/not_finite/iter_N.pth``, which ``WatchHook`` wrote.

    Raises:
        InputError: the file holds no batch, or one of another model.
        NotFiniteError: the losses or gradients are not finite again.
    """
    model = build_model(cfg, "cpu", as_in_training=True)
    lines, finite = batches.replay(cfg, model, file)
    if not finite:
        raise NotFiniteError("\n".join(lines))
    print("\n".join(lines))


class _Start(Hook):
    """Checks the checkpoint of a run, and notes when the run's work begins.

    Args:
        whole: whether the checkpoint must have weights for every parameter.

    Attributes:
        over: whether training, validation or testing has begun.
    """

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.over = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Raise an InputError if the checkpoint does not suit the run."""
        content = as_dict(checkpoint, runner._load_from)
        if self.whole:
            own_config.require_whole(runner.model, content, runner._load_from, None)

    def before_train(self, runner: Runner) -> None:
        """Note that the work has begun."""
        self.over = True

    before_val = before_train
    before_test = before_train


def build_runner(
    cfg: Config, mode: str, prepare: Callable[[], None] | None = None
) -> Runner:
    """Check a config and build a Runner with its data sets.

    The checks and ``fit_to_machine`` are made here, once. With a launcher, call this
    within ``launch.joined``.

    Args:
        cfg: as ``load_config`` returns it; it is changed to fit the machine.
        mode: 'train', 'val' or 'test': which of the Runner's methods will be called.
        prepare: called between the checks and building, as in ``run``.

    Returns:
        A Runner whose ``train()``, ``val()`` or ``test()`` can be called.

    Raises:
        InputError: the config, or a file that it names, is wrong.
    """
    splits = _splits(mode)
    checks.check(cfg, splits, data_files=prepare is None)
    fit_to_machine(cfg)
    if prepare:
        prepare()
        check_names(cfg, splits)
    try:
        wait_for_free_name(Path(cfg.work_dir))
        build = RUNNERS.build if "runner_type" in cfg else Runner.from_cfg
        with nullcontext() if mode == "train" else kept_config():
            runner = build(cfg)
        check_channels(runner.model)
        # With a strategy (FSDP) the model is built later.
        if mode == "train" and isinstance(runner.model, nn.Module):
            check_custom_keys(cfg, runner.model)
        if mode == "val":
            _save_no_best(runner)
        for split in splits:  # the first access to a loop builds its data set
            loop = getattr(runner, f"{split}_loop")
            empty = empty_dataset(loop.dataloader.dataset) if loop else None
            if empty is not None:
                source = empty.ann_file or ", ".join(empty.data_prefix.values())
                raise InputError(
                    explain_data(cfg, splits) or f"the {split} data is empty: {source}"
                )
    except InputError:
        raise
    except Exception as error:  # libraries can raise anything
        explanation = explain_data(cfg, splits) or explain_build(error)
        raise InputError(explanation) from error
    return runner


def _save_no_best(runner: Runner) -> None:
    """Turn ``save_best`` off: outside of training, mmengine's hook fails with it."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            hook.save_best = None


def _splits(mode: str) -> tuple[str, ...]:
    """The splits whose data a run in this mode uses."""
    return ("train", "val") if mode == "train" else (mode,)
