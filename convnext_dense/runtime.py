"""From a config and the command line's wishes to a Runner fit for this machine.

Shared by every tool and by both toolboxes: what differs between mmdet and
mmseg is said here once.
"""

import argparse
import copy
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, RUNNERS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from . import checkpoints, inputs
from .errors import InputError
from .layer_decay import LayerDecayOptimWrapperConstructor


def load_config(
    file: str,
    options: Sequence[str] | None = None,
    work_dir: str | None = None,
    launcher: str = "none",
) -> Config:
    """Read a config and apply the command line's general options.

    Args:
        file: path of the config.
        options: ``--cfg-options``, each ``key=value`` in mmengine's notation.
            ``data_root`` moves every data set and evaluator of the config, not
            only the variable of that name.
        work_dir: where the run writes; ``work_dirs/<config's name>`` if neither
            this nor the config says.
        launcher: none, pytorch, slurm or mpi.

    Raises:
        InputError: the config cannot be read, or an option not applied.
    """
    if not Path(file).is_file():
        raise InputError(f"no config at {file}")
    try:
        cfg = Config.fromfile(file)
    except InputError:
        raise
    except Exception as error:  # whatever a config's own code can raise
        raise InputError(
            f"{file} could not be read: {type(error).__name__}: {error}"
        ) from error
    cfg.launcher = launcher
    options = _parse_options(options or ())
    if "data_root" in options:
        if "data_root" not in cfg:
            raise InputError(f"--cfg-options: {file} has no data_root to change")
        _move_data(cfg, str(cfg.data_root), str(options["data_root"]))
    try:
        cfg.merge_from_dict(options)
    except Exception as error:
        raise InputError(f"--cfg-options could not be applied: {error}") from error
    if work_dir:
        cfg.work_dir = work_dir
    elif not cfg.get("work_dir"):
        cfg.work_dir = str(Path("work_dirs") / Path(file).stem)
    return cfg


def _parse_options(options: Sequence[str]) -> dict:
    for option in options:
        if "=" not in option:
            raise InputError(f"--cfg-options: {option!r} is not key=value")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="*", action=DictAction, default={})
    return parser.parse_args(["--cfg-options", *options]).cfg_options


def _move_data(cfg: Config, old: str, new: str) -> None:
    old, new = old.rstrip("/"), new.rstrip("/")

    def moved(value):
        if isinstance(value, dict):
            return type(value)({k: moved(v) for k, v in value.items()})
        if isinstance(value, list | tuple):
            return type(value)(map(moved, value))
        if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
            return new + value[len(old) :]
        return value

    for split in ("train", "val", "test"):
        for part in (f"{split}_dataloader", f"{split}_evaluator"):
            if cfg.get(part):
                cfg[part] = moved(cfg[part])


def use_amp(cfg: Config) -> None:
    """``--amp``: train in mixed precision."""
    wrapper = cfg.optim_wrapper
    if wrapper.get("type", "OptimWrapper") not in ("OptimWrapper", "AmpOptimWrapper"):
        raise InputError(f"--amp does not go with optim_wrapper type {wrapper.type}")
    wrapper.type = "AmpOptimWrapper"
    wrapper.setdefault("loss_scale", "dynamic")


def use_auto_scale_lr(cfg: Config) -> None:
    """``--auto-scale-lr``: scale the learning rate with the batch size."""
    if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
        raise InputError(
            f"--auto-scale-lr: {cfg.filename} does not say for which batch size its "
            "learning rate is; add auto_scale_lr = dict(base_batch_size=16)"
        )
    cfg.auto_scale_lr.enable = True


def use_resume(cfg: Config, checkpoint: str) -> None:
    """``--resume [CHECKPOINT]``: 'auto' takes the newest of the work dir."""
    cfg.resume = True
    cfg.load_from = None if checkpoint == "auto" else checkpoint


def use_tta(cfg: Config) -> None:
    """``--tta``: test-time augmentation, by the config's or mmdet's default."""
    if "tta_pipeline" not in cfg or "tta_model" not in cfg:
        if cfg.get("default_scope") != "mmdet":
            raise InputError(f"--tta: {cfg.filename} has no tta_model and tta_pipeline")
        _default_det_tta(cfg)
    if cfg.model.get("roi_head", {}).get("mask_head"):
        cfg.model.roi_head.mask_head = None
        for evaluator in _evaluators(cfg):
            if "segm" in evaluator.get("metric", ()):
                evaluator.metric = ["bbox"]
        print_log("--tta: mmdet merges boxes only, so masks are left out", "current")
    # What the config's tta_model says of its module changes the model for TTA.
    cfg.merge_from_dict(dict(model=cfg.tta_model.pop("module", {})))
    for dataset in inputs.datasets(cfg.test_dataloader):
        if "pipeline" in dataset:
            dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def _default_det_tta(cfg: Config) -> None:
    """The image and its mirror image, as mmdet's own test.py does."""
    cfg.tta_model = dict(
        type="DetTTAModel",
        tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100),
    )
    pipeline = copy.deepcopy(
        next(
            d.pipeline for d in inputs.datasets(cfg.test_dataloader) if "pipeline" in d
        )
    )
    pack = pipeline.pop()
    if "meta_keys" in pack:
        pack.meta_keys = (*pack.meta_keys, "flip", "flip_direction")
    flips = [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)]
    pipeline.append(dict(type="TestTimeAug", transforms=[flips, [pack]]))
    cfg.tta_pipeline = pipeline


def _evaluators(cfg: Config) -> list[ConfigDict]:
    evaluator = cfg.test_evaluator
    return list(evaluator) if isinstance(evaluator, list | tuple) else [evaluator]


def use_out(cfg: Config, out: str) -> None:
    """``--out``: a pickle of all predictions (mmdet) or a folder of PNGs (mmseg)."""
    if cfg.default_scope == "mmseg":
        for evaluator in _evaluators(cfg):
            evaluator.update(output_dir=out, keep_results=True)
        return
    if not out.endswith((".pkl", ".pickle")):
        raise InputError(f"--out {out}: for detection, name a .pkl file")
    if "metrics" in cfg.test_evaluator:
        raise InputError("--out: not with an evaluator of several data sets")
    dump = dict(type="DumpDetResults", out_file_path=out)
    cfg.test_evaluator = [*_evaluators(cfg), dump]


def use_show(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """``--show``, ``--show-dir``: draw every prediction beside its truth."""
    hook = cfg.get("default_hooks", {}).get("visualization")
    if not hook:
        raise InputError(
            f"--show: {cfg.filename} has no default_hooks.visualization; inherit "
            "configs/_base_/det_runtime.py or seg_runtime.py"
        )
    hook.update(draw=True, interval=1, show=show, wait_time=wait_time)
    if show_dir and cfg.default_scope == "mmdet":
        # A relative path would land below the work dir and a time stamp.
        hook.test_out_dir = str(Path(show_dir).absolute())
    elif show_dir:
        cfg.visualizer.save_dir = show_dir


def fit_to_machine(cfg: Config) -> None:
    """Replace what needs a GPU where there is none; one line says what.

    Raises:
        InputError: a launcher, which is for GPUs.
    """
    if get_device() != "cpu":
        return
    if cfg.launcher != "none":
        raise InputError(
            f"--launcher {cfg.launcher}: mmengine starts one process a GPU, and there "
            "is no GPU here; leave it out"
        )
    replaced = []
    wrapper = cfg.get("optim_wrapper", {})
    if wrapper.get("type") == "AmpOptimWrapper":
        wrapper.type = "OptimWrapper"
        for key in ("loss_scale", "dtype", "use_fsdp"):
            wrapper.pop(key, None)
        replaced.append("mixed precision by fp32")
    if _replace_type(cfg.model, "SyncBN", "BN"):
        replaced.append("SyncBN by BN")
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


def build_model(cfg: Config) -> nn.Module:
    """The model of ``cfg`` on the meta device: its structure, without memory.

    Raises:
        InputError: the config is of neither toolbox, or its model cannot be built.
    """
    inputs.check(cfg, ())
    scope = DefaultScope.overwrite_default_scope(cfg.default_scope)
    try:
        with scope, torch.device("meta"):
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


def run(cfg: Config, mode: str) -> None:
    """Train or test; a start that fails leaves nothing in the work dir.

    Args:
        mode: 'train' or 'test'.

    Raises:
        InputError: something that ``cfg`` names is not there or not what it
            should be.
    """
    start = _Start(whole=mode == "test" or cfg.get("resume", False))
    with _nothing_left_on_failure(Path(cfg.work_dir), start):
        runner = build_runner(cfg, mode)
        runner.register_hook(start, priority="HIGHEST")
        getattr(runner, mode)()


class _Start(Hook):
    """Looks at the checkpoint before it is used, and notes when work begins."""

    def __init__(self, whole: bool):
        self.whole = whole  # a head that starts from nothing is an error
        self.over = False

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
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

    before_test = before_train


def build_runner(cfg: Config, mode: str) -> Runner:
    """A Runner with its data sets built, ready for ``train()`` or ``test()``.

    Args:
        mode: 'train' or 'test'.

    Raises:
        InputError: something that ``cfg`` names is not there or not what it
            should be.
    """
    splits = ("train", "val") if mode == "train" else ("test",)
    inputs.check(cfg, splits)
    fit_to_machine(cfg)
    try:
        build = RUNNERS.build if "runner_type" in cfg else Runner.from_cfg
        runner = build(cfg)
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
    except Exception as error:
        trouble = inputs.explain(cfg, splits)
        if trouble:
            raise InputError(trouble) from error
        raise
    return runner


@contextmanager
def _nothing_left_on_failure(work_dir: Path, start: _Start) -> Iterator[None]:
    """Remove the folders that a start that failed made: the log's and those above."""
    before = set(work_dir.iterdir()) if work_dir.is_dir() else set()
    absent = [path for path in (work_dir, *work_dir.parents) if not path.exists()]
    try:
        yield
    except Exception:
        if start.over:
            raise
        made = absent[-1:] or set(work_dir.iterdir()) - before
        for path in made:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise
