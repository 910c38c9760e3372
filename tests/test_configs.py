"""Every config builds from its file alone."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from .conftest import ROOT

CONFIGS = sorted(ROOT.glob("configs/[!_]*/*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_builds_alone(path):
    """From the file itself, as a downstream tool would: no runtime of ours."""
    cfg = Config.fromfile(path)
    assert cfg.custom_imports.imports == ["convnext_dense"]
    assert not any("::" in base for base in cfg.get("_base_", []))
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert type(model.backbone).__module__ == "convnext_dense.backbone"
    heads = cfg.model.get("neck") or cfg.model.decode_head
    assert list(heads.in_channels) == [i.channels for i in model.backbone.feature_info]
