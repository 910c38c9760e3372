"""Two training steps and a prediction of a config, made small by ``--cfg-options``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import MODELS

from convnext_dense.config.options import load_config

from .paths import ROOT
from .runs import NO_WORKERS, NOTHING_SAVED
from .small_runs import train

STEPS, BATCH = 2, 2
# The steps of a pipeline that have a size in pixels, with its name.
SIZES = {
    "Resize": "scale",
    "RandomResize": "scale",
    "RandomChoiceResize": "scales",
    "RandomCrop": "crop_size",
    "Pad": "size",
    "CachedMosaic": "img_scale",
    "CachedMixUp": "img_scale",
    "BatchFixedSizePad": "size",
}


@dataclass
class Steps(Hook):
    """What a run of ``train_steps`` did; the hook that notes it.

    Attributes:
        losses: of each step, by name; ``loss`` is their sum.
        predictions: the toolbox's data samples of the validation.
        trained: the names of parameters that training changed.
        constant: the names of parameters that it did not change.
        frozen: the names of parameters without gradients.
    """

    losses: list[dict[str, float]] = field(default_factory=list)
    predictions: list[Any] = field(default_factory=list)
    trained: set[str] = field(default_factory=set)
    constant: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)

    def before_train(self, runner):
        """Keep the parameters' values."""
        self.before = {
            name: parameter.detach().clone()
            for name, parameter in runner.model.named_parameters()
        }

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Note the losses; compare the parameters after the last step."""
        self.losses.append({name: float(value) for name, value in outputs.items()})
        if len(self.losses) < STEPS:
            return
        for name, parameter in runner.model.named_parameters():
            same = torch.equal(parameter, self.before[name])
            (self.constant if same else self.trained).add(name)
            if not parameter.requires_grad:
                self.frozen.add(name)
        self.before = {}

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Keep the predictions."""
        self.predictions.extend(outputs)


def train_steps(config, work_dir, data_root, options=(), side=64):
    """Train two steps of two images with a config file, and validate with one image.

    Args:
        config: path of the config file, or its name without a suffix.
        work_dir: of the run.
        data_root: of the samples, in the layout that the config expects.
        options: more ``--cfg-options``, as for a smaller architecture.
        side: of the images in pixels.
    """
    if not str(config).endswith(".py"):
        (config,) = ROOT.glob(f"configs/*/{config}.py")
    cfg = load_config(str(config))
    common = [
        f"data_root={data_root}",
        f"train_dataloader.batch_size={BATCH}",
        f"train_dataloader.dataset.indices={STEPS * BATCH}",
        "val_dataloader.dataset.indices=1",
        "model.backbone.drop_path_rate=0.",  # else two steps may not train a block
        "randomness.seed=0",
        *NO_WORKERS,
        *NOTHING_SAVED,
    ]
    cfg = load_config(
        str(config), [*common, *_loop(cfg), *_sizes(cfg, side), *options], str(work_dir)
    )
    cfg.model.backbone.init_cfg = None
    if cfg.model.backbone.get("frozen_stages"):  # random weights are refused
        checkpoint = Path(work_dir).with_suffix(".pth")
        torch.save(MODELS.build(cfg.model.backbone).state_dict(), checkpoint)
        cfg.model.backbone.init_cfg = dict(
            type="Pretrained", checkpoint=str(checkpoint)
        )
    steps = Steps()
    train(cfg, hooks=[steps])
    return steps


def _loop(cfg):
    """Options for two steps at the full learning rate, and a validation."""
    iterations = "max_iters" in cfg.train_cfg
    warm_ups = [
        f"param_scheduler.{number}.start_factor=1."
        for number, scheduler in enumerate(cfg.param_scheduler)
        if scheduler.type == "LinearLR"
    ]
    return [
        f"train_cfg.max_iters={STEPS}" if iterations else "train_cfg.max_epochs=1",
        f"train_cfg.val_interval={STEPS if iterations else 1}",
        *warm_ups,
    ]


def _sizes(cfg, side):
    """Options for images and crops of ``side`` x ``side`` pixels."""
    options = []

    def visit(node, path):
        if isinstance(node, dict):
            key = SIZES.get(node.get("type"))
            if key:
                size = f"[({side},{side})]" if key == "scales" else f"({side},{side})"
                options.append(f"{path}.{key}={size}")
            for name, child in node.items():
                visit(child, f"{path}.{name}")
        elif isinstance(node, list | tuple):
            for number, child in enumerate(node):
                visit(child, f"{path}.{number}")

    for split in ("train", "val"):
        loader = cfg[f"{split}_dataloader"]
        visit(loader.dataset.pipeline, f"{split}_dataloader.dataset.pipeline")
    preprocessor = cfg.model.data_preprocessor
    if "size" in preprocessor:
        options.append(f"model.data_preprocessor.size=({side},{side})")
    visit(preprocessor.get("batch_augments"), "model.data_preprocessor.batch_augments")
    if "stride" in cfg.model.get("test_cfg", {}):
        options.append(f"model.test_cfg.crop_size=({side},{side})")
        options.append(f"model.test_cfg.stride=({side // 2},{side // 2})")
    return options
