"""Every config file describes a model that mmengine alone can build."""

import json

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
    package, *more = cfg.custom_imports.imports
    assert package == "convnext_dense"
    assert all(m == "mmdet.models" or m.startswith("convnext_dense.") for m in more)
    assert not any("::" in base for base in cfg.get("_base_", []))
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert type(model.backbone).__module__.startswith("convnext_dense.")
    names = ("neck", "panoptic_head", "decode_head")
    first = next(cfg.model[name] for name in names if cfg.model.get(name))
    channels = [info.channels for info in model.backbone.feature_info]
    assert first.in_channels in (channels, channels[-1])


def test_published_numbers():
    """A row of paper.json has all counts, or a source; then the config tells it too."""
    rows = json.loads((ROOT / "configs/paper.json").read_text())
    assert rows.pop("_about")
    files = {path.stem: path for path in CONFIGS}
    words = {"box_ap": "box", "mask_ap": "mask AP", "miou_ss": "mIoU"}
    words["miou_ms"] = "mIoU with --tta"
    for name, row in rows.items():
        comment = files[name].read_text().replace("\n# ", " ")
        if "source" in row:
            measures = row.keys() - {"source", "weights"}
            assert all(f"{row[key]} {words[key]}" in comment for key in measures)
        else:
            assert {"shape", "params", "flops"} < row.keys()
