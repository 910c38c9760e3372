"""Whatever is wrong with a checkpoint, the tools say it in one message, leave
nothing behind, and run nothing of it."""

import os
import re
import shutil

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from convnext_dense import ConvNeXt
from convnext_dense.config import load_config

from .peers import timm_name
from .test_reading import Run
from .test_tools import DET, SEG, metric, options


@pytest.fixture(scope="module")
def detector():
    """The weights of the built-in data set's detector."""
    cfg = load_config(str(DET))
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(cfg.model).state_dict()


def as_timm(weights):
    backbone = {k[9:]: v for k, v in weights.items() if k.startswith("backbone.")}
    return {timm_name(k): v for k, v in backbone.items() if k[:4] != "norm"}


def changed(weights, name, change):
    return dict(state_dict={**weights, name: change(weights[name])})


def init_cfg(file):
    return [
        *("--cfg-options", "model.backbone.init_cfg.type=Pretrained"),
        f"model.backbone.init_cfg.checkpoint={file}",
    ]


FC = "roi_head.bbox_head.0.fc_cls.weight"
GAMMA = "backbone.stages.1.0.gamma"
TEST = lambda file: ["test", DET, file]  # noqa: E731
LOAD = lambda file: ["train", DET, "--cfg-options", f"load_from={file}"]  # noqa: E731
INIT = lambda file: ["train", DET, *init_cfg(file)]  # noqa: E731
RESUME = lambda file: ["train", DET, "--resume", file]  # noqa: E731

CASES = {  # what the file holds, how it is given, what is said of it
    "only a backbone, to test": (
        as_timm,
        TEST,
        r"x\.pth holds a backbone \(timm\) and nothing else of this CascadeRCNN",
    ),
    "a head is missing, to test": (
        lambda w: {k: v for k, v in w.items() if "mask_head" not in k},
        TEST,
        r"x\.pth lacks roi_head \(\d+\) of this CascadeRCNN: they would be random",
    ),
    "other classes, to test": (
        lambda w: changed(w, FC, lambda v: torch.rand(81, v.shape[1])),
        TEST,
        r"x\.pth does not fit: roi_head\.bbox_head\.0\.fc_cls\.weight is \(81, 128\)",
    ),
    "a head is missing, to resume": (
        lambda w: dict(state_dict=as_timm(w), meta={}, optimizer={}),
        RESUME,
        r"x\.pth holds a backbone \(timm\) and nothing else",
    ),
    "no run, to resume": (
        lambda w: dict(state_dict=w),
        RESUME,
        r"--resume: \S*x\.pth is not of a run.*load_from=FILE",
    ),
    "NaN in a head": (
        lambda w: changed(w, FC, lambda v: v / 0),
        LOAD,
        r"x\.pth is damaged: roi_head\S* holds NaN",
    ),
    "NaN in the backbone": (
        lambda w: as_timm(changed(w, GAMMA, lambda v: v / 0)["state_dict"]),
        INIT,
        r"x\.pth is damaged: stages\.1\.0\.gamma holds NaN",
    ),
    "a shape in the backbone": (
        lambda w: changed(w, GAMMA, lambda v: v[:3]),
        TEST,
        r"x\.pth does not fit: stages\.1\.0\.gamma is \(3,\) there and \(80,\) here",
    ),
    "another architecture": (
        lambda w: ConvNeXt("femto").state_dict(),
        INIT,
        r"x\.pth .* is of another architecture: channels \(48, .* set arch='femto'",
    ),
    "another architecture, whole": (
        lambda w: {
            f"backbone.{k}": v for k, v in ConvNeXt("femto").state_dict().items()
        },
        LOAD,
        r"x\.pth .* is of another architecture.*set arch='femto'",
    ),
    "another model": (
        lambda w: {"backbone.conv1.weight": torch.rand(3)},
        LOAD,
        r"x\.pth has no ConvNeXt: backbone would start from nothing",
    ),
    "another model, for the backbone": (
        lambda w: dict(model={"conv1.weight": torch.rand(3)}),
        INIT,
        r"x\.pth has nothing for this ConvNeXt, which would start from nothing",
    ),
    "no weights": (
        lambda w: dict(epoch=3),
        LOAD,
        r"x\.pth holds no weights, only epoch",
    ),
    "no dict": (lambda w: [1, 2], INIT, r"x\.pth holds a list, not weights"),
}
WAYS = dict(test=TEST, load_from=LOAD, init_cfg=INIT, resume=RESUME)


def assert_one_message(done, says):
    assert done.code == 2, done.err
    assert re.search(says, done.err, re.DOTALL), done.err
    assert "Traceback" not in done.out + done.err
    assert done.err.count("error:") == 1
    print(done.err)


@pytest.fixture
def here(tmp_path, shapes_root):
    """A folder with the data; what it holds afterwards is what it held before."""
    shutil.copytree(shapes_root, tmp_path / "data/shapes")
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit(tool, here, detector, case):
    content, give, says = CASES[case]
    torch.save(content(detector), here / "x.pth")
    before = set(here.rglob("*"))
    assert_one_message(tool(*give(here / "x.pth")), says)
    assert set(here.rglob("*")) == before


@pytest.mark.parametrize("way", WAYS)
def test_hostile_files(tool, here, detector, way):
    content = dict(state_dict=detector, meta=Run(os.mkdir, "mark"), optimizer={})
    torch.save(content, here / "x.pth")
    before = set(here.rglob("*"))
    done = tool(*WAYS[way](here / "x.pth"))
    assert_one_message(done, r"x\.pth was not read: it asks for posix\.mkdir")
    assert set(here.rglob("*")) == before


@pytest.mark.parametrize("way", ["test", "init_cfg"])
def test_truncated_files(tool, here, detector, way):
    torch.save(dict(state_dict=detector, meta={}, optimizer={}), here / "x.pth")
    whole = (here / "x.pth").read_bytes()
    (here / "x.pth").write_bytes(whole[: len(whole) // 2])
    before = set(here.rglob("*"))
    done = tool(*WAYS[way](here / "x.pth"))
    assert_one_message(done, r"x\.pth is damaged or not a checkpoint: \S")
    assert set(here.rglob("*")) == before


def test_a_failed_start_keeps_what_the_work_dir_had(tool, here, detector):
    work_dir = here / "run"
    work_dir.mkdir()
    (work_dir / "epoch_1.pth").write_text("somebody's")
    torch.save(as_timm(detector), here / "x.pth")
    done = tool(*TEST(here / "x.pth"), "--work-dir", work_dir)
    assert_one_message(done, "nothing else of this CascadeRCNN")
    assert [path.name for path in work_dir.iterdir()] == ["epoch_1.pth"]


def test_trust_checkpoint(tool, here, detector):
    content = dict(state_dict=detector, meta=dict(x=Run(os.mkdir, "mark")))
    torch.save(content, here / "x.pth")
    arguments = [*TEST(here / "x.pth"), "--work-dir", here / "run"]
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
