"""From a config to a model, or to a Runner fit for this machine.

Shared by every tool and by both toolboxes.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, RUNNERS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from convnext_dense import checkpoints
from convnext_dense.config.checks import (
    building,
)
from convnext_dense.config.checks import (
    files as inputs,
)
from convnext_dense.config.checks import (
    names as spelling,
)
from convnext_dense.config.checks import (
    values as settings,
)
from convnext_dense.errors import InputError, NotFiniteError
from convnext_dense.optim.layer_decay import LayerDecayOptimWrapperConstructor
from convnext_dense.reports.run.hook import RunReportHook
from convnext_dense.utils import files

from . import cleanup
from . import launch as processes
from .exact_resume.hook import ExactResumeHook
from .watch import batches
from .watch.hook import WatchHook


def fit_to_machine(cfg: Config) -> None:
    """Replace what needs many processes where there is one, and what needs a GPU
    where there is none; a line says what."""
    many = (cfg.get("launcher") or "none") != "none"
    if not many and "FSDP" in (cfg.get("strategy") or {}).get("type", ""):
        for key in ("runner_type", "strategy"):
            cfg.pop(key, None)
        print_log("one process: FSDP replaced by the whole model", "current")
    if get_device() != "cpu":
        return
    replaced = []
    wrapper = cfg.get("optim_wrapper", {})
    if wrapper.get("type") == "AmpOptimWrapper":
        wrapper.type = "OptimWrapper"
        for key in ("loss_scale", "dtype", "use_fsdp"):
            wrapper.pop(key, None)
        replaced.append("mixed precision by fp32")
    if _replace_type(cfg.model, "SyncBN", "BN"):
        replaced.append("SyncBN by BN")
    if many and processes.fit_to_cpu(cfg):
        replaced.append("NCCL by gloo")
    if replaced:
        print_log(f"no GPU here: {', '.join(replaced)} replaced", "current")


def _replace_type(node, old: str, new: str) -> bool:
    """Whether a ``type`` was replaced anywhere below ``node``."""
    found = False
    if isinstance(node, dict):
        if node.get("type") == old:
            node["type"] = new
            found = True
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            found |= _replace_type(child, old, new)
    return found


def build_model(cfg: Config, device: str = "meta") -> nn.Module:
    """The model of ``cfg``, whose weights are random.

    Args:
        device: where it is; on the meta device it has a structure, and no memory.

    Raises:
        InputError: the config is of neither toolbox, or its model cannot be built.
    """
    inputs.check(cfg, ())
    spelling.check_names(cfg, ())
    scope = DefaultScope.overwrite_default_scope(cfg.default_scope)
    try:
        with scope, torch.device(device):
            return MODELS.build(cfg.model)
    except InputError:
        raise
    except Exception as error:  # whatever a toolbox's model can raise
        raise InputError(
            f"the model of {cfg.filename} could not be built: "
            f"{type(error).__name__}: {error}"
        ) from error


def build_layer_decay(cfg: Config) -> list[dict]:
    """The ``param_groups`` with which training by ``cfg`` starts, on the meta device.

    Raises:
        InputError: the model cannot be built, or ``cfg`` has no layer decay.
    """
    constructor = cfg.get("optim_wrapper", {}).get("constructor")
    if constructor != LayerDecayOptimWrapperConstructor.__name__:
        raise InputError(
            f"{cfg.filename} has no layer decay: every parameter learns at the "
            "optimizer's own rate; to have it, set optim_wrapper.constructor="
            "'LayerDecayOptimWrapperConstructor' and .paramwise_cfg.decay_rate"
        )
    fit_to_machine(cfg)
    wrapper = build_optim_wrapper(build_model(cfg), cfg.optim_wrapper)
    return wrapper.optimizer.param_groups


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
        processes.joined(cfg),
        _nothing_left_on_failure(Path(cfg.work_dir), start),
        cleanup.let_go(),
    ):
        if prepare:
            inputs.check(cfg, ())
            settings.check(cfg, _splits(mode))
            fit_to_machine(cfg)
            prepare()
        runner = build_runner(cfg, mode)
        runner.register_hook(start, priority="HIGHEST")
        if mode == "train":
            kinds = (WatchHook, ExactResumeHook, RunReportHook)
            there = tuple(map(type, runner.hooks))
            hooks = [*(kind() for kind in kinds if kind not in there), *hooks]
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
            kind = type(checkpoint).__name__
            raise InputError(f"{runner._load_from} holds a {kind}, not weights")
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


def build_runner(cfg: Config, mode: str) -> Runner:
    """A Runner with its data sets built, ready for ``train()`` or the like.

    With a launcher, to be called in ``processes.joined``.

    Args:
        mode: 'train', 'val' or 'test'.

    Raises:
        InputError: something that ``cfg`` names is not there or not what it
            should be.
    """
    splits = _splits(mode)
    inputs.check(cfg, splits)
    spelling.check_names(cfg, splits)
    fit_to_machine(cfg)
    try:
        build = RUNNERS.build if "runner_type" in cfg else Runner.from_cfg
        runner = build(cfg)
        building.check_channels(runner.model)
        for split in splits:  # a loop builds its data set when first asked for
            loop = getattr(runner, f"{split}_loop")
            empty = inputs.empty_part(loop.dataloader.dataset) if loop else None
            if empty is not None:
                where = empty.ann_file or ", ".join(empty.data_prefix.values())
                raise InputError(
                    inputs.explain(cfg, splits) or f"the {split} data is empty: {where}"
                )
    except InputError:
        raise
    except Exception as error:  # whatever a library can raise
        trouble = inputs.explain(cfg, splits) or building.explain(error)
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
            raise InputError(building.explain(error)) from error
        raise
