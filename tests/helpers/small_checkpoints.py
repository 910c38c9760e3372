"""Checkpoints of small detectors and segmentors, as a run saves them, untrained."""

import torch
from mmengine.registry import MODELS, DefaultScope

from convnext_dense.datasets import shapes

from .small_runs import small

META = dict(
    det=shapes.shapes_detection.METAINFO, seg=shapes.shapes_segmentation.METAINFO
)


def checkpoint(file, task):
    """Write a checkpoint and return its path.

    Args:
        task: 'det', whose model predicts up to five objects in any image, or 'seg'.
    """
    loop = dict(det="epochs", seg="iterations")[task]
    few = ["model.test_cfg.rcnn.score_thr=0.", "model.test_cfg.rcnn.max_per_img=5"]
    cfg = small(loop, file.parent, "data/shapes", options=few if task == "det" else ())
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        weights = MODELS.build(cfg.model).state_dict()
    meta = dict(cfg=cfg.pretty_text, dataset_meta=META[task])
    torch.save(dict(meta=meta, state_dict=weights), file)
    return file
