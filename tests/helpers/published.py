"""A small backbone, and weights under the names that other libraries published."""

import json

import torch
from mmengine.registry import MODELS, DefaultScope

from convnext_dense.config.options import load_config
from convnext_dense.engine.machine import fit_to_machine

from .paths import ROOT

# Origin -> parameter name -> shape.
PUBLISHED = json.loads((ROOT / "tests/data/checkpoint_names.json").read_text())
DEPTHS, CHANNELS = (1, 1, 2, 1), (8, 16, 24, 32)
SMALL = dict(depths=DEPTHS, channels=CHANNELS)

# As transformers' ConvNextConfig takes them.
V1 = dict(depths=list(DEPTHS), hidden_sizes=list(CHANNELS), num_labels=5)
ALL = [f"stage{n}" for n in (1, 2, 3, 4)]

# Below configs/.
DET = "det/cascade_mask_rcnn_convnext_t_coco"
SEG = "seg/upernet_convnext_t_ade20k"


def image(size=64):
    """Two images of noise, (2, 3, size, size)."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def published(name):
    """Noise under the names and of the shapes that an origin published."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for key, shape in PUBLISHED[name].items():
        noise = torch.randn(shape, generator=generator)
        vector = noise.numel() == max(shape) and not key.endswith(("bias", "beta"))
        weights[key] = 0.7 * vector + 0.1 * noise
    return weights


def build(name, **backbone):
    """The detector or segmentor of a config, with the small backbone."""
    cfg = load_config(str(ROOT / f"configs/{name}.py"))
    cfg.model.backbone.update(arch=SMALL, **backbone)
    if "neck" in cfg.model:
        cfg.model.neck.in_channels = list(CHANNELS)
        for head in cfg.model.roi_head.bbox_head:
            head.fc_out_channels = 32
    else:
        cfg.model.decode_head.update(in_channels=list(CHANNELS), channels=16)
        cfg.model.auxiliary_head.update(in_channels=CHANNELS[2], channels=8)
    fit_to_machine(cfg)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model).eval()
