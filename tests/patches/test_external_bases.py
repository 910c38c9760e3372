"""Configs that inherit from a toolbox's own, by ``mmdet::`` and ``mmseg::``."""

import pytest
from mmengine.config import Config

BASES = {
    "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py": "RetinaNet",
    "mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py": "EncoderDecoder",
}


@pytest.mark.parametrize("base", BASES)
def test_a_config_inherits_from_a_toolboxs(base, tmp_path):
    file = tmp_path / "child.py"
    file.write_text(f"_base_ = {base!r}\nmodel = dict(backbone=dict(depth=18))\n")
    cfg = Config.fromfile(file)
    assert cfg.model.type == BASES[base]
    assert cfg.model.backbone.depth == 18
