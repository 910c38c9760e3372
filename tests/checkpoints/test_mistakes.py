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
def folder(tmp_path, shapes_root):
    """A folder with the data; what it holds afterwards is what it held before."""
    shutil.copytree(shapes_root, tmp_path / "data/shapes")
    return tmp_path


def test_a_failed_start_keeps_what_the_work_dir_had(tool, folder, detector):
    work_dir = folder / "run"
    work_dir.mkdir()
    (work_dir / "epoch_1.pth").write_text("somebody's")
    torch.save(as_timm(detector), folder / "x.pth")
    done = tool("test", DET, folder / "x.pth", "--work-dir", work_dir)
    assert done.code == 2
    assert "nothing else of this CascadeRCNN" in done.err
    assert [path.name for path in work_dir.iterdir()] == ["epoch_1.pth"]


def test_trust_checkpoint(tool, folder, detector):
    content = dict(state_dict=detector, meta=dict(x=Run(os.mkdir, "mark")))
    torch.save(content, folder / "x.pth")
    arguments = ["test", DET, folder / "x.pth", "--work-dir", folder / "run"]
    done = tool(*arguments, "--trust-checkpoint", *options())
    assert done.code == 0, done.err
    assert "x.pth is trusted and may run code" in done.out
    assert (folder / "mark").exists()
    assert tool(*arguments).code == 2  # it was for that run only


def test_checkpoints_of_other_libraries_are_tested(tool, folder):
    """A segmentor of transformers and one of mmpretrain's era: the same mIoU."""
    cfg = load_config(str(SEG))
    with DefaultScope.overwrite_default_scope("mmseg"):
        weights = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=weights), folder / "own.pth")
    for to in ("transformers", "mmpretrain"):
        done = tool("convert_checkpoint", "own.pth", f"{to}.safetensors", "--to", to)
        assert done.code == 0, done.err
    scores = []
    for file in ("own.pth", "transformers.safetensors", "mmpretrain.safetensors"):
        done = tool("test", SEG, folder / file, *options())
        assert done.code == 0, done.err
        assert "not used: nothing; not in the checkpoint: nothing" in done.out
        scores.append(metric(done.out, "mIoU"))
    assert scores[0] == scores[1] == scores[2]
