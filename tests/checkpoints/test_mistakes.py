"""What checkpoints may do: of other libraries, of those one trusts, in vain."""

import os
import shutil

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from convnext_dense.config.options import load_config

from ..helpers.hostile_pickle import Run
from ..helpers.peers import timm_name
from ..helpers.runs import DET, SEG, metric, options


@pytest.fixture(scope="module")
def detector():
    """The weights of the built-in data set's detector."""
    cfg = load_config(str(DET))
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(cfg.model).state_dict()


def as_timm(weights):
    backbone = {k[9:]: v for k, v in weights.items() if k.startswith("backbone.")}
    return {timm_name(k): v for k, v in backbone.items() if k[:4] != "norm"}


@pytest.fixture
def here(tmp_path, shapes_root):
    """A folder with the data; what it holds afterwards is what it held before."""
    shutil.copytree(shapes_root, tmp_path / "data/shapes")
    return tmp_path


def test_a_failed_start_keeps_what_the_work_dir_had(tool, here, detector):
    work_dir = here / "run"
    work_dir.mkdir()
    (work_dir / "epoch_1.pth").write_text("somebody's")
    torch.save(as_timm(detector), here / "x.pth")
    done = tool("test", DET, here / "x.pth", "--work-dir", work_dir)
    assert done.code == 2
    assert "nothing else of this CascadeRCNN" in done.err
    assert [path.name for path in work_dir.iterdir()] == ["epoch_1.pth"]


def test_trust_checkpoint(tool, here, detector):
    content = dict(state_dict=detector, meta=dict(x=Run(os.mkdir, "mark")))
    torch.save(content, here / "x.pth")
    arguments = ["test", DET, here / "x.pth", "--work-dir", here / "run"]
    done = tool(*arguments, "--trust-checkpoint", *options())
    assert done.code == 0, done.err
    assert "x.pth is trusted and may run code" in done.out
    assert (here / "mark").exists()
    assert tool(*arguments).code == 2  # it was for that run only


def test_checkpoints_of_other_libraries_are_tested(tool, here):
    """A segmentor of transformers and one of mmpretrain's era: the same mIoU."""
    cfg = load_config(str(SEG))
    with DefaultScope.overwrite_default_scope("mmseg"):
        weights = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=weights), here / "own.pth")
    for to in ("transformers", "mmpretrain"):
        done = tool("convert_checkpoint", "own.pth", f"{to}.safetensors", "--to", to)
        assert done.code == 0, done.err
    found = []
    for file in ("own.pth", "transformers.safetensors", "mmpretrain.safetensors"):
        done = tool("test", SEG, here / file, *options())
        assert done.code == 0, done.err
        assert "left there: nothing; new here: nothing" in done.out
        found.append(metric(done.out, "mIoU"))
    assert found[0] == found[1] == found[2]
