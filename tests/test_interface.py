"""What others rely on and a move must not change, listed before the package had rooms:
flags, exit codes, registered types, variables, operators, import paths, checkpoints.
"""

import argparse
import importlib
import inspect
import json
import re
import runpy

import pytest
import torch
from mmengine import registry

import convnext_dense
from convnext_dense import checkpoints, commands, errors

from .helpers.custom_data import write_label_maps
from .helpers.paths import ROOT

DATA = ROOT / "tests/data"
LISTED = json.loads((DATA / "interface.json").read_text())
CHECKPOINT = DATA / "before_the_rooms.pth"  # of a run on label maps


def flags_of(command: str) -> dict:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"convnext_dense.commands.{command}").add_arguments(parser)
    return {
        "/".join(action.option_strings) or action.dest: dict(
            nargs=action.nargs,
            choices=list(action.choices) if action.choices else None,
            default=action.default,
            required=action.required,
        )
        for action in parser._actions
    }


@pytest.mark.parametrize("command", LISTED["flags"])
def test_flags(command):
    now = json.loads(json.dumps(flags_of(command)))
    for flag, listed in LISTED["flags"][command].items():
        choices = now[flag].pop("choices") or []  # there may be new ones
        assert set(listed.pop("choices") or []) <= set(choices), flag
        assert now[flag] == listed, flag


@pytest.mark.parametrize("command", LISTED["flags"])
def test_each_command_has_a_script_that_only_calls_it(command, monkeypatch):
    called = []
    monkeypatch.setattr(commands, "run", called.append)
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    runpy.run_path(str(ROOT / f"tools/{command}.py"), run_name="__main__")
    assert called == [command]


def test_exit_codes():
    codes = {"STOPPED": errors.STOPPED}
    for name, value in vars(errors).items():
        if inspect.isclass(value) and hasattr(value, "exit_code"):
            codes[name] = value.exit_code
    assert codes == LISTED["exit_codes"]


OLD_PATHS = {
    "convnext_dense.imagenet_s": "ImageNetSDataset BoundedEncoderDecoder",
    "convnext_dense.datasets.coco_o": "CocoOEvaluator",
    "convnext_dense.own_data.label_folder": "LabelMapDataset LoadLabelMapAnnotations",
    "convnext_dense.block": "Block GRN LayerNorm2d NORM_EPS",
}


@pytest.mark.parametrize("path", OLD_PATHS)
def test_old_import_paths(path):
    module = importlib.import_module(path)
    assert "oved to ``convnext_dense." in module.__doc__
    assert set(OLD_PATHS[path].split()) <= set(vars(module))


def test_the_old_path_of_the_block_is_the_same_class():
    from convnext_dense.block import Block
    from convnext_dense.models import block

    assert Block is block.Block


def test_registered_types():
    for path in OLD_PATHS:
        importlib.import_module(path)
    for name, listed in LISTED["types"].items():
        root = vars(registry)[name]
        registries = [root, *root.children.values()]
        known = {key for scope in registries for key in scope.module_dict}
        assert set(listed) <= known, name


def test_variables():
    for_tests = {f"CONVNEXT_DENSE_{n}" for n in ("EVERY_ARCH", "EVERY_KERNEL", "LOAD")}
    files = sorted((ROOT / "convnext_dense").rglob("*.py"))
    text = "".join(file.read_text() for file in files)
    names = set(re.findall(r"CONVNEXT_DENSE_[A-Z_]+", text))
    assert set(LISTED["variables"]) - for_tests <= names


def test_operators():
    # Those of the GPU are registered when they are first used.
    importlib.import_module("convnext_dense.models.fused.gpu.compile_op")
    known = torch._C._dispatch_get_all_op_names()
    assert set(LISTED["operators"]) <= set(known)


def test_parameter_names_in_checkpoints():
    weights = checkpoints.read(CHECKPOINT)["state_dict"]
    backbone = convnext_dense.ConvNeXt(dict(depths=[1] * 4, channels=[8, 8, 16, 16]))
    names = {f"backbone.{name}" for name in backbone.state_dict()}
    assert names == {name for name in weights if name.startswith("backbone.")}


def test_a_checkpoint_of_before_predicts_by_the_config_in_it(tool, tmp_path):
    write_label_maps(tmp_path / "data", images=2)
    done = tool("predict", CHECKPOINT, "data/images", "--out", "out")
    assert done.code == 0
    assert len(list((tmp_path / "out/labels").glob("*.png"))) == 2
    assert "backbone" not in done.err


def test_a_config_of_before_tests_and_trains(tool, tmp_path):
    """As mmengine dumped it beside the run; its custom_imports has an old path."""
    write_label_maps(tmp_path / "data")
    config = tmp_path / "config.py"
    text = checkpoints.read(CHECKPOINT)["meta"]["cfg"]
    assert "convnext_dense.own_data.label_folder" in text
    pairs = [[f"Bild {i} ü.jpg", f"Bild {i} ü.png"] for i in range(4)]
    (tmp_path / "w/data").mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / f"w/data/{split}.json").write_text(json.dumps(pairs))
    config.write_text(text)
    settings = [f"{s}_dataloader.num_workers=0" for s in ("train", "val", "test")]
    settings += [
        s.replace("num_workers=0", "persistent_workers=False") for s in settings
    ]
    done = tool("test", config, CHECKPOINT, "--cfg-options", *settings)
    assert done.code == 0
    assert "mIoU" in done.out + done.err
    done = tool("train", config, "--work-dir", "again", "--cfg-options", *settings)
    assert done.code == 0
