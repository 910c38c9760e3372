"""What a user can get wrong ends in one message and exit code 2, and leaves nothing."""

import json
import re
import shutil

import pytest

from convnext_dense import config, inputs
from convnext_dense.errors import InputError

from .conftest import shell
from .test_tools import ADE, COCO, DET, SEG, options


def write(path, text):
    path.write_text(text)
    return path


WRONG = {
    "no config": (
        lambda t: ["train", "configs/det/nothing.py"],
        r"no config at configs/det/nothing\.py",
    ),
    "config is not Python": (
        lambda t: ["train", write(t / "c.py", "model = dict(")],
        r"c\.py could not be read: .*yntax",
    ),
    "config imports what is not there": (
        lambda t: ["train", write(t / "c.py", "custom_imports=dict(imports='nope')")],
        r"c\.py could not be read: .*nope",
    ),
    "config of neither toolbox": (
        lambda t: ["train", write(t / "c.py", "model = dict(type='X')")],
        r"neither an MMDetection nor an MMSegmentation config",
    ),
    "config without a model": (
        lambda t: ["train", write(t / "c.py", "default_scope = 'mmdet'")],
        r"it has no model",
    ),
    "option that is not key=value": (
        lambda t: ["train", DET, "--cfg-options", "model"],
        r"'model' is not key=value",
    ),
    "option that does not fit": (
        lambda t: ["train", DET, "--cfg-options", "model.train_cfg.rcnn.7.mask_size=1"],
        r"--cfg-options could not be applied",
    ),
    "data_root of a config that has none": (
        lambda t: [
            *("train", write(t / "c.py", "default_scope = 'mmdet'\nmodel = dict()")),
            *("--cfg-options", "data_root=x"),
        ],
        r"has no data_root to change",
    ),
    "unknown arch": (
        lambda t: ["train", DET, "--cfg-options", "model.backbone.arch=tinny"],
        r"unknown arch 'tinny'.*tiny, small",
    ),
    "out_indices out of range": (
        lambda t: ["train", DET, "--cfg-options", "model.backbone.out_indices=(0,4)"],
        r"out_indices=.*0 to 3",
    ),
    "out_indices empty": (
        lambda t: ["train", DET, "--cfg-options", "model.backbone.out_indices=()"],
        r"at least one",
    ),
    "negative drop path rate": (
        lambda t: ["train", DET, "--cfg-options", "model.backbone.drop_path_rate=-0.1"],
        r"drop_path_rate=-0\.1.*probability",
    ),
    "COCO is not there": (
        lambda t: ["train", COCO],
        r"the train data is not there.*data/coco/annotations/instances_train2017\.json"
        r".*--cfg-options data_root=FOLDER",
    ),
    "ADE20K is not there": (
        lambda t: ["train", ADE],
        r"data/ade/ADEChallengeData2016/images/training.*data_root=FOLDER",
    ),
    "checkpoint is not there": (
        lambda t: ["test", DET, "nowhere.pth"],
        r"no checkpoint at nowhere\.pth",
    ),
    "weights cannot be downloaded": (
        lambda t: [
            *("train", DET, "--cfg-options", "model.backbone.init_cfg.type=Pretrained"),
            "model.backbone.init_cfg.checkpoint=http://127.0.0.1:9/x.pth",
        ],
        r"http://127\.0\.0\.1:9/x\.pth could not be downloaded"
        r".*init_cfg\.checkpoint=FILE.*from scratch.*init_cfg=None",
    ),
    "weights are not there": (
        lambda t: [
            *("train", DET, "--cfg-options", "model.backbone.init_cfg.type=Pretrained"),
            "model.backbone.init_cfg.checkpoint=x.pth",
        ],
        r"no checkpoint at x\.pth",
    ),
    "no batch size to scale from": (
        lambda t: [
            "train",
            DET,
            "--auto-scale-lr",
            "--cfg-options",
            "auto_scale_lr=None",
        ],
        r"--auto-scale-lr: .* add auto_scale_lr = dict\(base_batch_size=16\)",
    ),
    "launcher that did not start the process": (
        lambda t: ["train", DET, "--launcher", "pytorch"],
        r"--launcher pytorch: .*RANK, WORLD_SIZE.*torchrun --nproc_per_node=N",
    ),
    "--out is no pickle": (
        lambda t: ["test", DET, write(t / "x.pth", ""), "--out", "x.json"],
        r"--out x\.json.*\.pkl",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_one_message(tool, tmp_path, shapes_root, case):
    arguments, says = WRONG[case]
    shutil.copytree(shapes_root, tmp_path / "data/shapes")
    arguments = arguments(tmp_path)
    before = set(tmp_path.rglob("*"))
    done = tool(*arguments)
    assert done.code == 2
    assert re.search(says, done.err, re.DOTALL), done.err
    assert "Traceback" not in done.out + done.err
    assert done.err.count("error:") == 1
    assert set(tmp_path.rglob("*")) == before  # nothing half-written


ANNOTATIONS = {
    "not JSON": ("{", "is not JSON"),
    "a list": ("[]", "is not a COCO annotation file: it holds a list"),
    "no annotations": ('{"images": [], "categories": []}', "no list of annotations"),
    "no images": (
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "disc"}]}',
        "has no images",
    ),
    "other classes": (
        json.dumps(
            dict(
                images=[dict(id=1, file_name="000001.jpg", width=320, height=320)],
                annotations=[],
                categories=[dict(id=1, name="dog")],
            )
        ),
        "none of the config's classes (disc, square, triangle, star, cross); "
        "its own are dog",
    ),
}


@pytest.mark.parametrize("case", ANNOTATIONS)
def test_annotation_files_that_are_not_coco(tool, tmp_path, shapes_root, case):
    text, says = ANNOTATIONS[case]
    shutil.copytree(shapes_root, tmp_path / "shapes")
    file = tmp_path / "shapes/annotations/instances_train.json"
    file.write_text(text)
    before = set(tmp_path.rglob("*"))
    done = tool("train", DET, *options(f"data_root={tmp_path / 'shapes'}"))
    assert done.code == 2
    assert f"the annotations for train: {file} " in done.err
    assert says in done.err
    assert "Traceback" not in done.out + done.err
    assert set(tmp_path.rglob("*")) == before


def test_an_image_too_small(tool, tmp_path, shapes_root):
    done = tool(
        *("train", SEG, "--work-dir", tmp_path / "run"),
        *options(
            f"data_root={shapes_root}",
            "train_dataloader.dataset.pipeline.2.scale=(16,16)",
            "model.data_preprocessor.size=(16,16)",
        ),
    )
    assert done.code == 2
    assert "16 x 16 pixels" in done.err
    assert "at least 32" in done.err


def test_the_shell_sees_one_line():
    done = shell("tools/train.py", "nothing.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == "error: no config at nothing.py"


def test_debug_shows_the_stack(tool, monkeypatch):
    """Nobody catches the error: Python prints its stack."""
    monkeypatch.setenv("CONVNEXT_DENSE_DEBUG", "1")
    with pytest.raises(InputError, match=r"^no config at nothing\.py$"):
        tool("train", "nothing.py")


EXTRAS = r"(?s)pip install -e '\.\[onedl\]'.*pip install -e '\.\[openmmlab\]'"


def test_a_missing_toolbox_names_the_extras(tool, monkeypatch):
    monkeypatch.setattr(inputs, "find_spec", lambda name: None)
    done = tool("train", DET)
    assert done.code == 2
    assert "is a config of MMDetection, which is not installed" in done.err
    assert re.search(EXTRAS, done.err)


def test_a_missing_stack_names_the_extras(tmp_path):
    """As in an environment without it: mmengine cannot be found."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'mmengine':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    done = shell("tools/train.py", DET, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search(EXTRAS, done.stderr)


def test_tensorboard_that_is_not_installed(monkeypatch):
    cfg = config.load_config(str(DET))
    cfg.visualizer.vis_backends.append(dict(type="TensorboardVisBackend"))
    monkeypatch.setattr(inputs, "find_spec", lambda name: name != "tensorboard" or None)
    with pytest.raises(InputError, match="not installed: pip install tensorboard"):
        inputs.check(cfg, ())
    monkeypatch.setattr(inputs, "find_spec", lambda name: name)
    inputs.check(cfg, ())
