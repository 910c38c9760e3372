"""A checkpoint into a whole detector or segmentor, through mmengine."""

from collections import OrderedDict

import pytest
import torch
from mmengine.model import BaseModule, BaseTTAModel
from mmengine.runner import load_checkpoint
from torch import nn

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.errors import InputError

from ..helpers.mmengine_state import logged
from ..helpers.peers import timm_name

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])


class Detector(BaseModule):
    def __init__(self, classes=3, **backbone):
        super().__init__()
        self.backbone = ConvNeXt(SMALL, layer_scale_init_value=1.0, **backbone)
        self.neck = nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, classes, 1)

    def test_step(self, data):
        raise NotImplementedError


class TwoOfThem(nn.Module):
    def __init__(self):
        super().__init__()
        self.teacher, self.student = Detector(), Detector()


def noise(model):
    return OrderedDict((k, torch.rand_like(v)) for k, v in model.state_dict().items())


def as_timm(weights):
    return {timm_name(k): v for k, v in weights.items() if not k.startswith("norm")}


def load(model, content, tmp_path, **kwargs):
    torch.save(content, tmp_path / "a.pth")
    with logged() as messages:
        load_checkpoint(model, str(tmp_path / "a.pth"), logger="current", **kwargs)
    return [m for m in messages if not m.startswith("Loads checkpoint by")]


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("container", ["state_dict", "model", None])
def test_own_checkpoint(tmp_path, wrap, container):
    model = Detector()
    weights = noise(model)
    stored = {f"module.{k}": v for k, v in weights.items()} if wrap else weights
    (said,) = load(model, {container: stored} if container else stored, tmp_path)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert "under 'backbone.'" in said
    assert "not used: nothing; not in the checkpoint: nothing" in said


@pytest.mark.parametrize("outer", ["model.", "net.detector."])
def test_a_whole_model_in_another(tmp_path, outer):
    """As Lightning's modules save it, with keys that are no text beside it."""
    model = Detector()
    weights = noise(model)
    stored = {f"{outer}{name}": tensor for name, tensor in weights.items()}
    for content in (dict(state_dict=stored), {"my_state": stored, 3: {}, None: 1}):
        (said,) = load(model, content, tmp_path)
        assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
        assert "not used: nothing; not in the checkpoint: nothing" in said
        checkpoints.require_whole(model, content.get("state_dict", stored))


@pytest.mark.parametrize("container", ["state_dict", "model", None])
def test_backbone_of_another_library_into_a_detector(tmp_path, container):
    model, source = Detector(), ConvNeXt(SMALL, layer_scale_init_value=1.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    weights = noise(source)
    content = {**as_timm(weights), "head.fc.weight": torch.rand(10, 8)}
    (said,) = load(model, {container: content} if container else content, tmp_path)
    for name, tensor in model.backbone.state_dict().items():
        if not name.startswith("norm"):
            assert torch.equal(tensor, weights[name])
    # The detector's own "head" is not the classifier's.
    assert torch.equal(model.head.weight, before["head.weight"])
    assert "a.pth: timm, " in said
    assert "not used: classifier head (1)" in said
    assert "not in the checkpoint: backbone (8), head (2), neck (2)" in said


def test_heads_of_other_classes_start_anew(tmp_path):
    """As ever in mmengine: fine-tuning on other classes warns of their shape."""
    model, weights = Detector(classes=5), noise(Detector(classes=3))
    fresh = model.head.weight.clone()
    said = load(model, dict(state_dict=weights), tmp_path)
    assert "size mismatch for head.weight" in "".join(said)
    assert torch.equal(model.head.weight, fresh)
    assert torch.equal(model.neck.weight, weights["neck.weight"])


def test_what_has_no_convnext_is_an_error(tmp_path):
    with pytest.raises(
        InputError,
        match=r"a\.pth has no ConvNeXt: backbone would be random"
        r"\. The checkpoint holds neck \(2\)",
    ):
        load(
            Detector(),
            {"neck.weight": torch.rand(8, 8, 1, 1), "neck.bias": torch.rand(8)},
            tmp_path,
        )


def test_damage_beside_the_backbone_is_found(tmp_path):
    model = Detector()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    weights = noise(model)
    weights["neck.bias"][3] = float("nan")
    with pytest.raises(InputError, match=r"a\.pth is damaged: neck\.bias holds NaN"):
        load(model, dict(state_dict=weights), tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_misfit_leaves_the_model_as_it_was(tmp_path):
    model = Detector()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    weights = noise(model)
    weights["backbone.stages.2.0.gamma"] = torch.rand(4)
    with pytest.raises(InputError, match=r"stages\.2\.0\.gamma is \(4,\) in it"):
        load(model, dict(state_dict=weights), tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_two_backbones(tmp_path):
    model = TwoOfThem()
    weights = noise(model)
    said = load(model, dict(state_dict=weights), tmp_path)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert len(said) == 2
    assert "not used: nothing; not in the checkpoint: nothing" in said[0]


def test_a_model_that_places_its_backbones_itself(tmp_path):
    """mmdet's semi-supervised detectors give one detector's weights to both."""
    model, source = TwoOfThem(), Detector()
    weights = noise(source)

    def to_both(module, state_dict, prefix, *args):
        for name in list(state_dict):
            tensor = state_dict.pop(name)
            state_dict.update({f"teacher.{name}": tensor, f"student.{name}": tensor})

    model.register_load_state_dict_pre_hook(to_both)
    renamed = {
        name.replace("dwconv", "depthwise_conv").replace("pwconv", "pointwise_conv"): w
        for name, w in weights.items()
    }
    assert load(model, dict(state_dict=renamed), tmp_path) == []
    for detector in (model.teacher, model.student):
        assert all(torch.equal(v, weights[k]) for k, v in detector.state_dict().items())


def test_models_of_others_are_loaded_as_ever(tmp_path):
    model = nn.Conv2d(3, 8, 1)
    weights = noise(model)
    assert load(model, weights, tmp_path) == []
    assert torch.equal(model.weight, weights["weight"])
    (said,) = load(model, {"stem.0.weight": weights["weight"]}, tmp_path)
    assert "missing keys in source state_dict: weight, bias" in said


def test_init_cfg_of_the_whole_model(tmp_path):
    """mmengine's own Pretrained, on a detector."""
    source = Detector()
    weights = noise(source)
    torch.save(dict(state_dict=weights), tmp_path / "a.pth")
    model = Detector()
    model.init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "a.pth"))
    model.init_weights()
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_strict_stays_strict(tmp_path):
    weights = noise(Detector())
    del weights["neck.bias"]
    with pytest.raises(RuntimeError, match=r"(?s)missing keys.*neck\.bias"):
        load(Detector(), weights, tmp_path, strict=True)
    backbone = as_timm(noise(Detector().backbone))
    with pytest.raises(RuntimeError, match=r"(?s)missing keys.*neck\.weight"):
        load(Detector(), backbone, tmp_path, strict=True)


class Augmented(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        raise NotImplementedError


@pytest.mark.parametrize("wrap", [nn.DataParallel, Augmented])
def test_wrapped_models(tmp_path, wrap):
    model = Detector()
    weights = noise(model)
    load(wrap(model), weights, tmp_path)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_whole_is_asked_for():
    model = Detector()
    weights = noise(model)
    checkpoints.require_whole(model, weights)
    del weights["head.bias"]
    with pytest.raises(InputError, match=r"lacks head \(1\) of this Detector: they"):
        checkpoints.require_whole(model, weights)
    with pytest.raises(InputError, match=r"head\.weight is \(5, 8, 1, 1\) in it"):
        checkpoints.require_whole(model, noise(Detector(classes=5)))
    backbone = as_timm(noise(model.backbone))
    with pytest.raises(
        InputError,
        match=r"holds a backbone \(timm\) and nothing else of this Detector, whose "
        r"backbone \(8\), head \(2\), neck \(2\) would be random\. Train with it as",
    ):
        checkpoints.require_whole(model, backbone)
