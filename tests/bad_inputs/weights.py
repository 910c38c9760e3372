"""Checkpoints of small models, to be given and to be damaged."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.registry import MODELS, DefaultScope

from convnext_dense.config.options import load_config
from convnext_dense.datasets import shapes

from .case import DET, SEG, heir

ARCH = "dict(depths=[1] * 4, channels=[40, 80, 160, 320], _delete_=True)"
BASES = dict(det=DET, seg=SEG)


def small_config(folder: Path, task: str = "det", more: str = "") -> Path:
    """The built-in data set's config, with a backbone of four blocks."""
    backbone = f"arch={ARCH}{more}"
    return heir(folder, f"model = dict(backbone=dict({backbone}))", BASES[task])


@functools.cache
def _model(task: str) -> tuple[str, dict]:
    with tempfile.TemporaryDirectory() as folder:
        cfg = load_config(str(small_config(Path(folder), task)))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return cfg.pretty_text, MODELS.build(cfg.model).state_dict()


def save(folder: Path, task: str = "det", change: Callable = lambda content: content):
    """``x.pth`` as a run of ``small_config`` leaves it, untrained, after ``change``."""
    text, weights = _model(task)
    classes = dict(det=shapes.CLASSES, seg=("background", *shapes.CLASSES))[task]
    content = dict(
        meta=dict(cfg=text, dataset_meta=dict(classes=classes)),
        state_dict=dict(weights),
    )
    torch.save(change(content), folder / "x.pth")
    return folder / "x.pth"
