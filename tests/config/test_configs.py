"""Every config file describes a model that mmengine alone can build."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ..helpers.paths import ROOT

CONFIGS = sorted(ROOT.glob("configs/[!_]*/*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_builds_alone(path):
    """From the file itself, as another tool would, without this package's runner."""
    cfg = Config.fromfile(path)
    first, *more = cfg.custom_imports.imports
    assert first == "convnext_dense"
    assert all(m == "mmdet.models" or m.startswith("convnext_dense.") for m in more)
    assert not any("::" in base for base in cfg.get("_base_", []))
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert type(model.backbone).__module__.startswith("convnext_dense.")
    heads = cfg.model.get("neck") or cfg.model.decode_head
    channels = [info.channels for info in model.backbone.feature_info]
    assert heads.in_channels in (channels, channels[-1])
