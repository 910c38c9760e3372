"""The warning of a backbone whose ``init_cfg`` was not loaded: it would be random."""

import copy
import functools
import pickle

import pytest
import torch
from mmengine.model import BaseModule, ExponentialMovingAverage
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import _load_checkpoint_to_model

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.commands.export import networks
from convnext_dense.config.options import load_config

from ..helpers.mmengine_state import logged
from ..helpers.runs import SEG

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])
IMAGE = torch.rand(1, 3, 32, 32)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "backbone.pth"
    torch.save(ConvNeXt(SMALL).state_dict(), path)
    return str(path)


def backbone(file):
    return ConvNeXt(SMALL, init_cfg=dict(type="Pretrained", checkpoint=file))


class Segmentor(BaseModule):
    def __init__(self, file):
        super().__init__()
        self.backbone = backbone(file)
        self.head = torch.nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.head(self.backbone(x)[3])


def said(model, image=IMAGE):
    with logged() as messages:
        model(image)
        model(image)
    return messages


def test_warns_once_and_its_advice_works(file):
    model = backbone(file)
    (message,) = said(model)
    assert f"are random: its init_cfg names {file}, which was not loaded" in message
    assert "Call backbone.init_weights()" in message
    assert not said(model)
    followed = backbone(file)
    followed.init_weights()
    assert not said(followed)
    assert not said(ConvNeXt(SMALL))


def test_warns_where_it_is_traced_too(file):
    with logged() as messages:
        traced = torch.fx.symbolic_trace(backbone(file))
    assert len(messages) == 1
    assert not said(traced)
    model = backbone(file)
    torch._dynamo.reset()
    torch.compile(model, backend="eager", fullgraph=True)(IMAGE)  # is not stopped
    assert len(said(model)) == 1


def test_weights_of_something_else_do_not_count(file):
    model = Segmentor(file)
    head = {k: v for k, v in model.state_dict().items() if k.startswith("head")}
    model.load_state_dict(head, strict=False)
    assert len(said(model)) == 1
    alone = backbone(file)
    alone.load_state_dict({"other": torch.rand(1)}, strict=False)
    assert len(said(alone)) == 1


def runner_loads(model, path):
    content = torch.load(path)
    _load_checkpoint_to_model(model, dict(state_dict=content))


LOADS = {
    "init_weights": lambda model, path: model.init_weights(),
    "load_state_dict": lambda model, path: model.load_state_dict(torch.load(path)),
    "load_checkpoint": lambda model, path: load_checkpoint(model, path),
    "load_from, resume": runner_loads,
    "load_pretrained": lambda model, path: checkpoints.load_pretrained(
        model.backbone, path
    ),
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_whole_model_that_was_loaded_is_silent(load, file, tmp_path):
    model = Segmentor(file)
    path = str(tmp_path / "whole.pth")
    torch.save(Segmentor(file).state_dict(), path)
    load(model, path)
    assert not said(model)
    assert not said(copy.deepcopy(model))
    assert not said(pickle.loads(pickle.dumps(model)))


def test_complexity_and_export_are_silent(file):
    """They need no weights: on the meta device, and said to be random by the export."""
    with torch.device("meta"):
        counted = backbone(file)
    assert not said(counted, IMAGE.to("meta"))
    cfg = load_config(str(SEG))
    cfg.model.backbone.init_cfg = dict(type="Pretrained", checkpoint=file)
    cfg.load_from = None
    with logged() as messages:
        network = networks.build(cfg, backbone=True)
        network.module(torch.rand(1, 3, 64, 64))
    assert [m for m in messages if "random" in m] == [
        "no CHECKPOINT was given: the weights are random"
    ]


def test_a_detector_of_mmengine_hub_is_silent(file):
    """It sets ``is_init`` on what it has loaded."""
    model = backbone(file)
    model.is_init = True
    assert not said(model)


def copied(model, path):
    weights = torch.load(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    return model


def averaged(model, path):
    """The average is made before the weights are loaded, as by mmengine's EMAHook."""
    average = ExponentialMovingAverage(model)
    model.init_weights()
    average.update_parameters(model)
    return average


def called(model, path):
    return functools.partial(torch.func.functional_call, model, torch.load(path))


def called_on_meta(model, path):
    with torch.device("meta"):
        model = backbone(path)
    return functools.partial(torch.func.functional_call, model, torch.load(path))


@pytest.mark.parametrize("load", [copied, averaged, called, called_on_meta])
def test_weights_that_were_copied_in_are_loaded(load, file):
    assert not said(load(backbone(file), file))


def test_random_weights_of_another_number_type_stay_random(file):
    for dtype in torch.float64, torch.bfloat16:
        assert len(said(backbone(file).to(dtype), IMAGE.to(dtype))) == 1
