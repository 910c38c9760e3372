"""Checkpoints of small models that are not trained, as mmengine saves them."""

import torch
from mmengine.registry import MODELS, DefaultScope

from convnext_dense.config.options import load_config
from convnext_dense.datasets import shapes

# A backbone of four blocks; five objects are predicted in any image.
SMALL = "arch=dict(depths=[1] * 4, channels=[40, 80, 160, 320], _delete_=True)"
FEW = "rpn=dict(max_per_img=10), rcnn=dict(score_thr=0., max_per_img=5)"


def config_like(base, folder, model):
    """Write a config with other settings of the model than ``base`` has."""
    file = folder / "config.py"
    file.write_text(f"_base_ = {str(base)!r}\nmodel = dict({model})\n")
    return file


def save_untrained(base, folder, model):
    """Write a config of the built-in data, and a checkpoint; return their paths."""
    config = config_like(base, folder, model)
    cfg = load_config(str(config))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        weights = MODELS.build(cfg.model).state_dict()
    of_task = dict(mmdet=shapes.shapes_detection, mmseg=shapes.shapes_segmentation)
    meta = dict(cfg=cfg.pretty_text, dataset_meta=of_task[cfg.default_scope].METAINFO)
    torch.save(dict(meta=meta, state_dict=weights), folder / "epoch_1.pth")
    return config, folder / "epoch_1.pth"
