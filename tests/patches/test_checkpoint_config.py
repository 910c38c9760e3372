"""Inferencers take the model from a checkpoint without running its config."""

import os

import pytest
import torch
from mmengine.config import Config

from convnext_dense.checkpoints import TRUST
from convnext_dense.errors import InputError

from ..bad_inputs.weights import save

TASKS = {"det": "DetInferencer", "seg": "MMSegInferencer"}


def inferencer(task, weights):
    """A toolbox's own inferencer, with weights only."""
    toolbox = dict(det="mmdet", seg="mmseg")[task]
    apis = pytest.importorskip(f"{toolbox}.apis")
    arguments = dict(show_progress=False) if task == "det" else {}
    return getattr(apis, TASKS[task])(
        model=None, weights=str(weights), device="cpu", **arguments
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_checkpoint_is_enough(task, tmp_path):
    """Also where it is the first argument, without the word weights."""
    toolbox = dict(det="mmdet", seg="mmseg")[task]
    apis = pytest.importorskip(f"{toolbox}.apis")
    file = str(save(tmp_path, task))
    made = getattr(apis, TASKS[task])(file, device="cpu")
    weights = torch.load(file, weights_only=False)["state_dict"]
    name = "backbone.stages.0.0.pwconv1.weight"
    assert torch.equal(made.model.state_dict()[name], weights[name])
    with pytest.raises(ValueError, match="Cannot find model"):
        getattr(apis, TASKS[task])("a_model_without_a_file", device="cpu")


def with_config(text):
    def change(content):
        text_before = content["meta"]["cfg"]
        return dict(content, meta={**content["meta"], "cfg": text(text_before)})

    return change


@pytest.mark.parametrize("task", TASKS)
def test_an_honest_checkpoint(task, tmp_path, shapes_root):
    made = inferencer(task, save(tmp_path, task))
    weights = torch.load(tmp_path / "x.pth", weights_only=False)["state_dict"]
    assert torch.equal(
        made.model.backbone.stages[0][0].gamma, weights["backbone.stages.0.0.gamma"]
    )
    image = next((shapes_root / "images/val").iterdir())
    made(str(image), no_save_vis=True) if task == "det" else made(str(image))


HOSTILE = {  # how the config is changed; what the message says
    "an import": (lambda t: f"import os\nos.mkdir('MARK')\n{t}", "it contains code"),
    "a call": (lambda t: f"{t}\nmodel = __import__('os').mkdir('MARK')", "code"),
    "a module": (
        lambda t: f"{t}\ncustom_imports = dict(imports=['evil_module'])",
        "it imports evil_module",
    ),
    "a type": (
        lambda t: f"{t}\nmodel = dict(type='os.mkdir', path='MARK')",
        "which no toolbox registers",
    ),
    "a type in the pipeline": (
        lambda t: (
            f"{t}\ntest_dataloader = dict(dataset=dict(type='CocoDataset', "
            "pipeline=[dict(type='LoadImageFromFile'), dict(type='os.mkdir', "
            "name='MARK')]))"
        ),
        "which no toolbox registers",
    ),
    "much": (lambda t: f"x = {'1, ' * 10**6}", "characters"),
}


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.replace(" ", "-"))
@pytest.mark.parametrize("task", TASKS)
def test_hostile_configs_are_refused(case, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil_module.py").write_text("import os; os.mkdir('MARK')")
    change, message = HOSTILE[case]
    weights = save(tmp_path, task, with_config(change))
    with pytest.raises(InputError, match=message) as error:
        inferencer(task, weights)
    assert "Name the config as model=FILE" in str(error.value)
    assert not os.path.exists("MARK")


UNUSED = """
test_dataloader = dict(
    collate_fn=dict(type='os.mkdir'),
    dataset=dict(
        type='os.mkdir', name='MARK', metainfo=dict(classes='secret.txt'),
        pipeline=[dict(type='LoadImageFromFile')]))
visualizer = dict(type='os.mkdir', name='MARK')
hook = __import__('os').mkdir('MARK')
"""


@pytest.mark.parametrize("task", TASKS)
def test_other_settings_have_no_effect(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inferencer(task, save(tmp_path, task, with_config(lambda t: t + UNUSED)))
    assert not os.path.exists("MARK")


def test_trusted_configs_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(TRUST, "1")
    code = "x = __import__('os').mkdir('MARK')"
    inferencer("seg", save(tmp_path, "seg", with_config(lambda t: f"{code}\n{t}")))
    assert os.path.exists("MARK")


def test_the_users_own_text_is_run(tmp_path, monkeypatch):
    """``Config.fromstring`` is as before where no checkpoint is being used."""
    monkeypatch.chdir(tmp_path)
    assert Config.fromstring("a = len('abc')", ".py").a == 3
