"""Reads a config file and applies the command line's flags to it.

One function for each flag of the toolboxes' own train.py and test.py, for both
toolboxes.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from convnext_dense.errors import InputError
from convnext_dense.utils import files
from convnext_dense.utils.text import reason

from . import cfg_options, shipped
from .checks import names
from .sections import dataset_configs


def load_config(
    file: str,
    options: Sequence[str] | None = None,
    work_dir: str | None = None,
    launcher: str = "none",
) -> Config:
    """Read a config file and apply the flags that all commands have.

    The config is not checked yet: ``build_runner`` and ``build_model`` check it.

    Args:
        file: the config file, or the name of a config of this package.
        options: ``--cfg-options``, each ``key=value`` in mmengine's notation.
            ``data_root`` moves every data set and evaluator of the config, not
            only the variable of that name.
        work_dir: the folder that the run writes to. The default is the config's
            ``work_dir``, or else ``work_dirs/<config's name>``.
        launcher: none, pytorch, slurm or mpi.

    Returns:
        The config, with ``work_dir`` and ``launcher`` set.

    Raises:
        InputError: the config cannot be read, or an option cannot be applied.

    Example::

        cfg = load_config(
            "upernet_convnext_atto_shapes",
            ["train_cfg.max_iters=100", "data_root=/data/shapes"],
        )
        runner = convnext_dense.engine.runner.run(cfg, "train")
    """
    file = shipped.resolve(file)
    if Path(file).suffix in (".pth", ".pt", ".bin", ".safetensors"):
        raise InputError(f"{file} is a checkpoint: give the config before it")
    try:
        cfg = Config.fromfile(file)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(
            f"{file} could not be read: it inherits from itself through _base_"
        ) from error
    except Exception as error:  # the config's own code can raise anything
        raise InputError(f"{file} could not be read: {reason(error)}") from error
    cfg.launcher = launcher
    use_options(cfg, options or ())
    if work_dir:
        cfg.work_dir = work_dir
    elif not cfg.get("work_dir"):
        cfg.work_dir = str(Path("work_dirs") / Path(file).stem)
    return cfg


def use_options(cfg: Config, options: Sequence[str]) -> None:
    """Apply ``--cfg-options``: KEY=VALUE texts, as for ``load_config``.

    Raises:
        InputError: an option cannot be read, nothing reads its key, or its value does
            not fit.
    """
    settings = cfg_options.parse(options)
    if "data_root" in settings:
        if "data_root" not in cfg:
            raise InputError(
                f"--cfg-options: {cfg.filename} has no data_root to change"
            )
        _move_data(cfg, str(cfg.data_root), str(settings["data_root"]))
    names.check_options(cfg, settings)
    try:
        cfg.merge_from_dict(settings)
    except Exception as error:
        raise InputError(f"--cfg-options could not be applied: {error}") from error


def _move_data(cfg: Config, old: str, new: str) -> None:
    """Replace the folder ``old`` by ``new`` in all dataloaders and evaluators."""
    old, new = old.rstrip("/"), new.rstrip("/")

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return type(value)({k: moved(v) for k, v in value.items()})
        if isinstance(value, list | tuple):
            return type(value)(map(moved, value))
        if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
            return new + value[len(old) :]
        return value

    for split in ("train", "val", "test"):
        for section in (f"{split}_dataloader", f"{split}_evaluator"):
            if cfg.get(section):
                cfg[section] = moved(cfg[section])


def use_amp(cfg: Config) -> None:
    """Apply ``--amp``: train in mixed precision.

    Raises:
        InputError: the config's optimizer wrapper has no mixed precision.
    """
    wrapper = cfg.optim_wrapper
    if wrapper.get("type", "OptimWrapper") not in ("OptimWrapper", "AmpOptimWrapper"):
        raise InputError(
            f"--amp works with OptimWrapper, not with the config's {wrapper.type}: set "
            "optim_wrapper.type, or run without --amp"
        )
    wrapper.type = "AmpOptimWrapper"
    wrapper.setdefault("loss_scale", "dynamic")


def use_auto_scale_lr(cfg: Config) -> None:
    """Apply ``--auto-scale-lr``: scale the learning rate with the batch size.

    Raises:
        InputError: the config does not say for which batch size its rate is.
    """
    if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
        raise InputError(
            f"--auto-scale-lr: {cfg.filename} does not say for which batch size its "
            "learning rate is; add auto_scale_lr = dict(base_batch_size=16)"
        )
    cfg.auto_scale_lr.enable = True


def use_resume(cfg: Config, checkpoint: str) -> None:
    """Apply ``--resume [CHECKPOINT]``: continue a run.

    Args:
        checkpoint: a file; 'auto' stands for the newest checkpoint of the work dir.
    """
    cfg.resume = True
    cfg.load_from = None if checkpoint == "auto" else checkpoint


def use_tta(cfg: Config) -> None:
    """Apply ``--tta``: test-time augmentation, as the config or mmdet defines it.

    Raises:
        InputError: the config of a segmentor defines none.
    """
    if "tta_pipeline" not in cfg or "tta_model" not in cfg:
        if cfg.get("default_scope") != "mmdet":
            raise InputError(
                f"--tta: {cfg.filename} has no tta_model and tta_pipeline; add them to "
                "the config, or run without --tta"
            )
        _default_det_tta(cfg)
    if cfg.model.get("roi_head", {}).get("mask_head"):
        cfg.model.roi_head.mask_head = None
        for evaluator in _evaluators(cfg):
            if "segm" in evaluator.get("metric", ()):
                evaluator.metric = ["bbox"]
        print_log("--tta: mmdet merges boxes only; masks are left out", "current")
    # A config's tta_model.module changes settings of the model for TTA.
    cfg.merge_from_dict(dict(model=cfg.tta_model.pop("module", {})))
    for dataset in dataset_configs(cfg.test_dataloader):
        if "pipeline" in dataset:
            dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def _default_det_tta(cfg: Config) -> None:
    """Test each image and its mirror image, as mmdet's own test.py does."""
    cfg.tta_model = dict(
        type="DetTTAModel",
        tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100),
    )
    pipeline = copy.deepcopy(
        next(
            d.pipeline for d in dataset_configs(cfg.test_dataloader) if "pipeline" in d
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
    """Apply ``--out``: keep all predictions.

    Args:
        out: a .pkl file for mmdet, a folder of PNGs for mmseg.

    Raises:
        InputError: ``out`` cannot be written, or is not of the toolbox's format.
    """
    if cfg.default_scope == "mmseg":
        files.check_folder(out, "--out")
        for evaluator in _evaluators(cfg):
            evaluator.update(output_dir=out, keep_results=True)
        return
    if not out.endswith((".pkl", ".pickle")):
        raise InputError(f"--out {out}: for detection, name a .pkl file")
    files.check_folder(Path(out).parent, "--out")
    if "metrics" in cfg.test_evaluator:
        raise InputError(
            "--out does not work with an evaluator of several data sets: test them one "
            "by one, or run without --out"
        )
    dump = dict(type="DumpDetResults", out_file_path=out)
    cfg.test_evaluator = [*_evaluators(cfg), dump]


def use_show(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Apply ``--show`` and ``--show-dir``: draw predictions beside the ground truth.

    Args:
        show: open a window for each image.
        show_dir: the folder to draw into; None for no files.
        wait_time: seconds that a window stays open.

    Raises:
        InputError: the config has no visualization hook, or ``show_dir`` cannot be
            written to.
    """
    hook = cfg.get("default_hooks", {}).get("visualization")
    if not hook:
        raise InputError(
            f"--show: {cfg.filename} has no default_hooks.visualization; inherit "
            "configs/_base_/det_runtime.py or seg_runtime.py"
        )
    if show_dir:
        files.check_folder(show_dir, "--show-dir")
    hook.update(draw=True, interval=1, show=show, wait_time=wait_time)
    if show_dir and cfg.default_scope == "mmdet":
        # mmdet would put a relative path below the work dir and a time stamp.
        hook.test_out_dir = str(Path(show_dir).absolute())


def image_pipeline(cfg: Config) -> list[ConfigDict]:
    """The test pipeline for local image files without annotations.

    Returns:
        A copy of the config's pipeline without the steps that load annotations and
        without file backends.

    Raises:
        InputError: there is no pipeline, or it does not start with LoadImageFromFile.
    """
    datasets = dataset_configs(cfg.get("test_dataloader"))
    pipeline = next((d["pipeline"] for d in datasets if "pipeline" in d), None)
    if not isinstance(pipeline, list) or not all(
        isinstance(step, dict) and "type" in step for step in pipeline
    ):
        raise InputError(f"{cfg.filename} has no test_dataloader.dataset.pipeline")
    steps = [
        copy.deepcopy(step) for step in pipeline if "Annotations" not in str(step.type)
    ]
    if not steps or not str(steps[0].type).endswith("LoadImageFromFile"):
        raise InputError(
            f"the test pipeline of {cfg.filename} does not start with LoadImageFromFile"
        )
    for backend in ("backend_args", "file_client_args"):
        steps[0].pop(backend, None)
    return steps
