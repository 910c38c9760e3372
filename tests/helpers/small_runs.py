"""Training runs of seconds, which tests stop, resume and compare."""

import json
from pathlib import Path

import torch

from convnext_dense.config.options import load_config, use_resume
from convnext_dense.engine.runner import run

from .runs import DET, SEG

SIDE = 64  # pixels
CHANNELS = [8, 16, 24, 32]
EMA = dict(type="EMAHook", momentum=0.1)


def small(loop, work_dir, data, workers=0, options=(), ema=False, launcher="none"):
    """The config of a small run with flips, drop path, checkpoints and validations.

    Args:
        loop: 'epochs' (detection) or 'iterations' (segmentation).
        data: folder of the built-in data set.
        workers: of each data loader.
        options: ``--cfg-options``.
        ema: whether the weights are averaged.
    """
    common = [
        f"data_root={data}",
        "train_dataloader.batch_size=2",
        "model.backbone.drop_path_rate=0.3",
        "default_hooks.logger.interval=1",
        "default_hooks.checkpoint.save_best=auto",
        "default_hooks.checkpoint.max_keep_ckpts=2",
        *(f"{s}_dataloader.num_workers={workers}" for s in ("train", "val")),
        *(f"{s}_dataloader.persistent_workers={workers > 0}" for s in ("train", "val")),
    ]
    if loop == "epochs":
        by_loop = [
            "train_cfg.max_epochs=3",
            "train_cfg.val_interval=1",
            "model.rpn_head.anchor_generator.scales=[2]",
            "model.train_cfg.rpn_proposal.max_per_img=20",
            "model.test_cfg.rpn.max_per_img=5",
        ]
    else:
        by_loop = [
            "train_cfg.max_iters=9",
            "train_cfg.val_interval=3",
            "default_hooks.checkpoint.interval=3",
            f"model.data_preprocessor.size=({SIDE},{SIDE})",
        ]
    cfg = load_config(
        str(DET if loop == "epochs" else SEG),
        [*common, *by_loop, *options],
        str(work_dir),
        launcher,
    )
    for split in ("train", "val", "test"):
        for step in cfg[f"{split}_dataloader"].dataset.pipeline:
            if "scale" in step:
                step.scale = (SIDE, SIDE)
    _shrink(cfg.model)
    if ema:
        cfg.custom_hooks = [EMA]
    return cfg


def _shrink(model):
    """Make the backbone and the heads of a config small."""
    model.backbone.arch = dict(depths=[1, 1, 2, 1], channels=CHANNELS)
    if "neck" in model:
        model.neck.in_channels = CHANNELS
        for head in model.roi_head.bbox_head:
            head.fc_out_channels = 32
        model.roi_head.mask_head.num_convs = 1
    else:
        model.decode_head.update(in_channels=CHANNELS, channels=16)
        model.auxiliary_head.update(in_channels=CHANNELS[2], channels=16)


def train(cfg, resume=False, **more):
    """Train or resume in one thread, since more threads do not help such a model."""
    if resume:
        use_resume(cfg, "auto")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(cfg, "train", **more)
    finally:
        torch.set_num_threads(threads)


def log(work_dir):
    """The text of the log of the latest start."""
    return max(Path(work_dir).glob("*/*.log")).read_text()


def weights(work_dir):
    """The tensors of the last checkpoint: weights, averages and optimizer's state."""
    file = Path(work_dir, Path(work_dir, "last_checkpoint").read_text()).name
    content = torch.load(Path(work_dir, file), weights_only=False)
    tensors = dict(content["state_dict"], **content.get("ema_state_dict", {}))
    for number, state in content["optimizer"]["state"].items():
        tensors.update({f"{number} {name}": value for name, value in state.items()})
    return tensors


def logged(work_dir):
    """Every logged value except times and memory, by step.

    If a step was logged twice, the later values count.
    """
    values = {}
    for file in sorted(Path(work_dir).glob("*/vis_data/scalars.json")):
        for line in map(json.loads, file.read_text().splitlines()):
            row = {k: v for k, v in line.items() if "time" not in k and k != "memory"}
            values[("lr" in row, line.get("iter", line["step"]))] = row
    return values


def differences(first, second):
    """The names of tensors and logged steps that differ between two runs, if by a bit.

    Args:
        first, second: the work dirs of the runs.
    """
    a, b = weights(first), weights(second)
    different = [k for k in a.keys() | b.keys() if not same(a.get(k), b.get(k))]
    a, b = logged(first), logged(second)
    return different + [k for k in a.keys() | b.keys() if a.get(k) != b.get(k)]


def same(a, b):
    """Whether two values, or all elements of two tensors, are equal."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b
