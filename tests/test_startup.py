"""What convnext_dense.pth adds when Python starts: ``mmseg::`` bases are found."""

import importlib.util
import runpy
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.utils import get_installed_path, is_installed

from .helpers.paths import ROOT

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


def test_scripts_that_have_not_imported_the_package_find_mmseg(monkeypatch):
    """The maintained stack's distribution has another name than mmengine expects."""
    finder = runpy.run_path(str(ROOT / "convnext_dense_startup.py"))["Finder"]
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])

    def missing(name):
        raise PackageNotFoundError(name)

    for function in "version", "distribution":
        monkeypatch.setattr(f"importlib.metadata.{function}", missing)
    assert is_installed("mmsegmentation")
    mmseg = Path(importlib.util.find_spec("mmseg").origin).parent
    assert Path(get_installed_path("mmsegmentation")).samefile(mmseg)
    with pytest.raises(ImportError):
        importlib.import_module("mmsegmentation")
