"""Configs and options of the runs that tests start."""

import re

from .paths import ROOT

# Of the built-in data set, with the smallest architecture.
DET = ROOT / "configs/det/cascade_mask_rcnn_convnext_atto_shapes.py"
SEG = ROOT / "configs/seg/upernet_convnext_atto_shapes.py"
# Of the paper.
COCO = ROOT / "configs/det/cascade_mask_rcnn_convnext_t_coco.py"
ADE = ROOT / "configs/seg/upernet_convnext_t_ade20k.py"

NO_WORKERS = [
    f"{split}_dataloader.{key}"
    for split in ("train", "val", "test")
    for key in ("num_workers=0", "persistent_workers=False")
]

# For runs of one epoch or iteration: to save a large model takes long.
NOTHING_SAVED = [
    "default_hooks.checkpoint.interval=2",
    "default_hooks.checkpoint.save_last=False",
]


def options(*more):
    """``--cfg-options`` without data-loader workers, and with ``more``."""
    return ["--cfg-options", *NO_WORKERS, *map(str, more)]


def metric(out, name):
    """The last value of a metric in a tool's output."""
    return float(re.findall(rf"{name}: (-?[\d.]+)", out)[-1])
