"""Runs of configs for measuring a training step, on real or made data."""

import copy
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from convnext_dense.commands.benchmark import random_targets
from convnext_dense.config.options import load_config
from convnext_dense.engine.machine import fit_to_machine
from convnext_dense.engine.runner import TRAINING_HOOKS
from convnext_dense.engine.short_runs import ShortRunHook


@DATASETS.register_module()
class MadeData(Dataset):
    """Random images with random boxes, masks and label maps, made once.

    Args:
        size: height and width of the longest image in pixels; others are narrower.
        classes: their number.
        segmentation: whether the targets are label maps.
    """

    def __init__(
        self, size: tuple[int, int], classes: int, segmentation: bool = False
    ) -> None:
        self.metainfo = dict(classes=tuple(map(str, range(classes))))
        target = (
            random_targets.segmentation_target
            if segmentation
            else random_targets.detection_target
        )
        height, width = size
        self._samples = []
        for share in (1.0, 0.9, 0.75, 0.8):
            shape = height, width if segmentation else int(width * share)
            image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
            self._samples.append(dict(inputs=image, data_samples=target(*shape)))

    def __len__(self) -> int:
        return 10000

    def __getitem__(self, index: int) -> dict:
        return copy.deepcopy(self._samples[index % len(self._samples)])


def prepare(
    file: Path,
    options: Sequence[str],
    device: str,
    dtype: str,
    size: tuple[int, int],
    batch: int,
    data: Path,
) -> Runner:
    """A Runner of a config with all hooks of ``convnext-dense train``.

    Args:
        file: the config.
        options: ``--cfg-options``.
        device: cpu or cuda.
        dtype: bf16, fp16 or fp32.
        size: of the largest image, height and width in pixels.
        batch: images a step.
        data: a COCO folder; made images if it does not exist.
    """
    cfg = load_config(str(file), options, tempfile.mkdtemp())
    cfg.model.backbone.init_cfg = None
    loader = cfg.train_dataloader
    segmentation = cfg.default_scope == "mmseg"
    if data.is_dir() and not segmentation:
        loader.dataset.update(data_root=f"{data}/")
        _resize(loader.dataset.pipeline, size)
        loader.dataset.pop("filter_cfg", None)
    else:
        loader.dataset = dict(
            type="MadeData",
            size=size,
            classes=max(_values(cfg.model, "num_classes")),
            segmentation=segmentation,
        )
    loader.update(batch_size=batch, num_workers=0, persistent_workers=False)
    loader.pop("batch_sampler", None)
    loader.sampler = dict(type="InfiniteSampler", shuffle=False)
    for key in ("val", "test"):
        for name in ("dataloader", "evaluator", "cfg"):
            cfg.pop(f"{key}_{name}", None)
    cfg.train_cfg = dict(by_epoch=False, max_iters=100000)
    cfg.param_scheduler = []
    cfg.optim_wrapper.optimizer.lr /= 100  # the weights are random
    cfg.default_hooks.pop("checkpoint", None)
    cfg.log_processor = dict(by_epoch=False)
    cfg.randomness = dict(seed=0)
    cfg.log_level = "WARNING"
    if cfg.optim_wrapper.type == "AmpOptimWrapper" or dtype != "fp32":
        names = dict(bf16="bfloat16", fp16="float16")
        cfg.optim_wrapper.type = "AmpOptimWrapper" if dtype in names else "OptimWrapper"
        cfg.optim_wrapper.pop("loss_scale", None)
        if dtype in names:
            cfg.optim_wrapper.dtype = names[dtype]
    if device == "cpu":
        fit_to_machine(cfg)
    # One process: SyncBN computes what BN does, but needs a process group.
    runner = Runner.from_cfg(_without_sync(cfg))
    for hook in (ShortRunHook(), *(hook() for hook in TRAINING_HOOKS)):
        runner.register_hook(hook)
    return runner


def _values(node: Any, key: str) -> Iterator[Any]:
    """The values of ``key`` in nested dicts and lists."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from _values(item, key)


def _resize(steps: Sequence, size: tuple[int, int]) -> None:
    """Limit the sizes of a pipeline's images."""
    for step in steps:
        if isinstance(step, list | tuple):
            _resize(step, size)
            continue
        _resize(step.get("transforms", ()), size)
        if "scales" in step:
            step.scales = [size]
        if "crop_size" in step:
            step.crop_size = (size[0] // 2, size[1] // 2)


def _without_sync(cfg: Config) -> Config:
    """The config with BN in place of SyncBN."""
    text = cfg.pretty_text.replace("SyncBN", "BN")
    plain = Config.fromstring(text, ".py")
    plain.work_dir = cfg.work_dir
    return plain
