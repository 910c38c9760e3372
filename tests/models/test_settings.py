"""Settings of a backbone: lean or written out, layout, optimized for inference."""

import copy
import io
import re

import pytest
import torch
from torch import nn

from convnext_dense import ConvNeXt
from convnext_dense.errors import InputError
from convnext_dense.models.block import Block

from ..helpers.comparing import assert_same
from ..helpers.keeping import kept_bytes
from ..helpers.mmengine_state import logged
from ..helpers.peers import randomised

SMALL = dict(depths=[1, 1, 2, 1], channels=[16, 24, 32, 48])
V1 = dict(layer_scale_init_value=1.0)
V2 = dict(layer_scale_init_value=0.0, use_grn=True)
versions = pytest.mark.parametrize("version", [V1, V2], ids=["V1", "V2"])


def model_of(**kwargs):
    return randomised(lambda: ConvNeXt(SMALL, **{**V1, **kwargs}))


def image_of(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def maps_and_gradients(model, x):
    model.zero_grad()
    maps = model(x)
    sum(m.square().mean() for m in maps).backward()
    return [*maps, *(p.grad for p in model.parameters())]


@versions
def test_lean_and_written_out_in_one_process(version):
    """Equal numbers; each keeps what its way keeps, in any order of the calls."""
    lean, written_out = model_of(lean=True, **version), model_of(lean=False, **version)
    x = image_of(1, 3, 64, 96)
    results = [maps_and_gradients(m, x) for m in (written_out, lean, written_out)]
    for a, b, c in zip(*results, strict=True):
        assert_same(a, b)
        assert torch.equal(a, c)
    assert kept_bytes(lean, x) < 0.6 * kept_bytes(written_out, x)
    with pytest.raises(NotImplementedError, match="set lean=False on the backbone"):
        second_derivative(lean, x)
    lean.lean = False  # as the message says
    assert_same(second_derivative(lean, x), second_derivative(written_out, x))
    assert kept_bytes(lean, x) == kept_bytes(written_out, x)


def second_derivative(model, x):
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x)[3].square().sum(), x, create_graph=True)
    return torch.autograd.grad(slope.square().sum(), x)[0]


def test_none_follows_the_default_of_the_process(monkeypatch):
    model, fixed = model_of(), model_of(lean=True)
    blocks = [m for m in model.modules() if isinstance(m, Block)]
    assert model.lean
    monkeypatch.setattr(Block, "lean", False)
    assert not model.lean
    assert not any(block.lean for block in blocks)
    assert fixed.lean
    assert all(m.lean for m in fixed.modules() if isinstance(m, Block))
    assert kept_bytes(model, x := image_of(1, 3, 64, 64)) > kept_bytes(fixed, x)
    model.lean = True
    assert all(block.lean for block in blocks)
    model.lean = None
    assert not any(block.lean for block in blocks)


def test_lean_is_in_no_checkpoint_and_stays_in_copies():
    model, default = model_of(lean=False), model_of()
    assert model.state_dict().keys() == default.state_dict().keys()
    default.load_state_dict(model.state_dict())
    assert default.lean
    assert not copy.deepcopy(model).lean
    assert not copy.deepcopy(model).stages[2][1].lean


@pytest.mark.parametrize("value", ["no", 2])
def test_lean_is_a_boolean(value):
    with pytest.raises(InputError, match=f"lean={value!r} of ConvNeXt: give True"):
        ConvNeXt(SMALL, lean=value)


IMAGES = {
    "contiguous": image_of(2, 3, 64, 96),
    "channels_last": image_of(2, 3, 64, 96).to(memory_format=torch.channels_last),
    "expanded": image_of(1, 3, 64, 96).expand(2, 3, 64, 96),
    "sliced": image_of(2, 3, 128, 192)[:, :, ::2, ::2],
    "no image": image_of(0, 3, 64, 96),
}


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("lean", [True, False], ids=["lean", "written out"])
def test_layout_of_the_maps(images, lean):
    """It is the one that ``print`` names, whatever the layout of the images is."""
    model = model_of(lean=lean)
    for channels_last, layout in ((True, "channels_last"), (False, "contiguous")):
        model.channels_last = channels_last
        formats = dict(
            channels_last=torch.channels_last, contiguous=torch.contiguous_format
        )
        for feature_map in model(images):
            assert feature_map.is_contiguous(memory_format=formats[layout])
        assert f"layout {layout}" in repr(model)


def test_print_names_strides_channels_and_layout():
    model = ConvNeXt(SMALL, out_indices=(1, 3), channels_last=False)
    first, second, *_ = repr(model).splitlines()
    assert first == "ConvNeXt("
    assert second.strip() == "maps: strides 8, 32; channels 24, 48; layout contiguous"


def saved(model):
    """A state dict after ``torch.save`` and ``torch.load``."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    return torch.load(file)


def loaded(model, weights, how):
    """Load weights into a model, alone or inside another; return what was said."""
    weights = {name: weight.clone() for name, weight in weights.items()}
    before = dict(weights)
    with logged() as messages:
        if how == "inside another":
            outer = nn.Module()
            outer.backbone = model
            outer.load_state_dict({f"backbone.{k}": v for k, v in weights.items()})
        else:
            model.load_state_dict(weights, strict=how == "strict")
    assert weights.keys() == before.keys()  # the caller's dict is as it was
    return messages


HOW = ["strict", "not strict", "inside another"]


@versions
@pytest.mark.parametrize("how", HOW)
def test_weights_of_an_optimized_backbone_load_anywhere(version, how):
    x = image_of(2, 3, 64, 64)
    trained = model_of(**version).eval()
    expected = trained(x)
    optimized = copy.deepcopy(trained).optimize_for_inference()
    weights, original = saved(optimized), saved(trained)
    for target, given, says in (
        (optimized_of(version), weights, None),
        (optimized_of(version), original, "is optimized for inference: layer scale"),
        (ConvNeXt(SMALL, **version), weights, "have no layer scale.*set to 1"),
        (ConvNeXt(SMALL, **version), original, None),
    ):
        messages = loaded(target.eval(), given, how)
        for mine, true in zip(target(x), expected, strict=True):
            assert_same(mine, true)
        if version is V1 and says:
            (message,) = messages
            assert re.search(says, message)
        else:
            assert not messages
    assert optimized.optimized
    assert not trained.optimized


def optimized_of(version):
    return ConvNeXt(SMALL, **version).optimize_for_inference()


def test_an_optimized_backbone_is_pickled_whole_and_as_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model, x = model_of().optimize_for_inference(), image_of(1, 3, 64, 64)
    torch.save(model, tmp_path / "whole.pth")
    again = torch.load(tmp_path / "whole.pth", weights_only=False)
    assert again.optimized
    safetensors.save_model(model, str(tmp_path / "x.safetensors"))
    other = optimized_of(V1)
    safetensors.load_model(other, str(tmp_path / "x.safetensors"))
    for target in (again, other):
        for mine, expected in zip(target(x), model(x), strict=True):
            assert_same(mine, expected)


def test_incomplete_weights_are_refused_as_before():
    """One layer scale of many is missing: the checkpoint is damaged."""
    model = model_of()
    weights = saved(model)
    del weights["stages.2.1.gamma"]
    with pytest.raises(RuntimeError, match=r"Missing key.*stages\.2\.1\.gamma"):
        model.load_state_dict(weights)
    without = ConvNeXt(SMALL, layer_scale_init_value=0.0)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*stages\.0\.0\.gamma"):
        without.load_state_dict(saved(model))


def test_training_an_optimized_backbone_warns_once():
    model, x = model_of().optimize_for_inference(), image_of(1, 3, 64, 64)
    with logged() as messages:
        model(x)
        model.train()
        with torch.no_grad():
            model(x)
        assert not messages
        model.requires_grad_()(x)
        model(x)
    (message,) = messages
    assert "training mode after optimize_for_inference()" in message
    assert "build another one" in message
