"""Mistakes that are not in tests/bad_inputs: in the shell, and missing packages."""

import re

import pytest

from convnext_dense.config.checks import check, requirements
from convnext_dense.config.options import load_config
from convnext_dense.errors import InputError

from ..helpers.paths import ROOT
from ..helpers.running import shell
from ..helpers.runs import DET, SEG, options


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
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no config at nothing.py, ")


def test_debug_shows_the_stack(tool, monkeypatch):
    """The error is not caught, so Python prints its stack."""
    monkeypatch.setenv("CONVNEXT_DENSE_DEBUG", "1")
    with pytest.raises(InputError, match=r"^no config at nothing\.py, "):
        tool("train", "nothing.py")


EXTRAS = r"(?s)convnext-dense\[onedl\]'.*convnext-dense\[openmmlab\]'"


def test_a_missing_toolbox_names_the_extras(tool, monkeypatch):
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    done = tool("train", DET)
    assert done.code == 2
    assert "is a config of MMDetection, which is not installed" in done.err
    assert re.search(EXTRAS, done.err)


def test_a_missing_stack_names_the_extras(tmp_path):
    """The test hides mmengine, as in an environment without it."""
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
    cfg = load_config(str(DET))
    cfg.visualizer.vis_backends.append(dict(type="TensorboardVisBackend"))
    monkeypatch.setattr(
        requirements, "find_spec", lambda name: name != "tensorboard" or None
    )
    with pytest.raises(InputError, match="not installed: pip install tensorboard"):
        check(cfg, ())
    monkeypatch.setattr(requirements, "find_spec", lambda name: name)
    check(cfg, ())


@pytest.mark.parametrize("split", ["train", "test"])
def test_panopticapi_that_is_not_installed(monkeypatch, split):
    """Training needs it for the labels, testing for the metric too."""
    cfg = load_config(str(ROOT / "configs/det/mask2former_convnext_t_coco_panoptic.py"))
    monkeypatch.setattr(
        requirements, "find_spec", lambda name: name != "panopticapi" or None
    )
    command = r"pip install git\+https://github\.com/cocodataset/panopticapi\.git"
    with pytest.raises(InputError, match=f"not installed: {command}"):
        check(cfg, [split])
    requirements.check_panopticapi(cfg, ())  # building the model needs none
