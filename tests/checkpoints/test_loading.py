"""Weights into a backbone: what fits, what does not, and what is said of it."""

import copy

import pytest
import torch
from mmengine.runner import load_checkpoint

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.errors import InputError

from ..helpers.mmengine_state import logged

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])


def small(**kwargs):
    return ConvNeXt(SMALL, **{"layer_scale_init_value": 1.0, **kwargs})


@pytest.mark.parametrize("container", ["model", "state_dict", None])
def test_loads_the_authors_classification_checkpoint(tmp_path, container):
    """Their names, a classifier and its norm more, the output norms missing."""
    source = small()
    weights = {k: torch.rand_like(v) for k, v in source.state_dict().items()}
    weights = {k: v for k, v in weights.items() if not k.startswith("norm")}
    extra = {
        "norm.weight": torch.rand(8),
        "norm.bias": torch.rand(8),
        "head.weight": torch.rand(1000, 8),
        "head.bias": torch.rand(1000),
    }
    file = tmp_path / "convnext.pth"
    content = {**weights, **extra}
    torch.save({container: content} if container else content, file)

    model = small(init_cfg=dict(type="Pretrained", checkpoint=str(file)))
    with logged() as messages:
        model.init_weights()
    (said,) = messages
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in weights.items())
    assert (state["norm3.weight"] == 1).all()
    assert f"{len(weights)} of the backbone's {len(state)} tensors used" in said
    assert "classifier head (2), classifier norm (2)" in said
    assert "norm0 (2), norm1 (2)" in said


@pytest.mark.parametrize("prefix", ["teacher.backbone.", "teacher.backbone"])
def test_prefix_picks_one_of_several(tmp_path, prefix):
    source, file = small(), tmp_path / "detector.pth"
    weights = {
        f"{who}.backbone.{k}": torch.rand_like(v)
        for k, v in source.state_dict().items()
        for who in ("student", "teacher")
    }
    torch.save(dict(state_dict={**weights, "neck.weight": torch.rand(1)}), file)
    model = small(init_cfg=dict(type="Pretrained", checkpoint=str(file), prefix=prefix))
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[f"teacher.backbone.{name}"])


def without(fragment):
    return lambda w: {k: v for k, v in w.items() if fragment not in k}


def changed(name, change):
    return lambda w: {**w, name: change(w[name])}


def of(**kwargs):
    kwargs = {"arch": SMALL, "layer_scale_init_value": 1.0, **kwargs}
    return lambda w: ConvNeXt(**kwargs).state_dict()


DEEPER = dict(depths=[1, 1, 2, 1], channels=[8, 8, 8, 8])
BROADER = dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32])
MISFITS = {
    "another model": (
        lambda w: {"conv1.weight": torch.rand(1)},
        r"would be random\. The checkpoint's 1 tensors begin with conv1\.weight",
    ),
    "no weights": (lambda w: {}, r"holds no weights: it is empty"),
    "no weights, but a log": (lambda w: dict(loss=[1.0]), r"no weights, only loss"),
    "a list": (lambda w: [w], r"holds a list, not weights"),
    "another depth": (
        of(arch=DEEPER),  # every tensor of ours is there
        r"another architecture: depths \(1, 1, 2, 1\) in the checkpoint and "
        r"\(1, 1, 1, 1\) in the model; "
        r"set arch=dict\(depths=\[1, 1, 2, 1\], channels=\[8, 8, 8, 8\]\)",
    ),
    "another width": (
        of(arch=BROADER),
        r"channels \(8, 16, 24, 32\) in the checkpoint and \(8, 8",
    ),
    "a known arch": (of(arch="atto"), r"set arch='atto' on the backbone"),
    "GRN, and no layer scale": (
        of(use_grn=True, layer_scale_init_value=0.0),
        r"use_grn True in the checkpoint.*"
        r"set use_grn=True and layer_scale_init_value=0\.0",
    ),
    "no layer scale": (without("gamma"), r"set layer_scale_init_value=0\.0"),
    "channels of the image": (of(in_channels=4), r"set in_channels=4"),
    "a stage is missing": (
        without("stages.2"),
        r"lacks 9 of the .*stages\.2.*not whole",
    ),
    "one tensor is missing": (without("stages.1.0.norm.bias"), r"lacks 1 of the"),
    "one shape": (
        changed("stages.1.0.gamma", lambda v: torch.rand(9)),
        r"stages\.1\.0\.gamma is \(9,\) in it and \(8,\) in the model",
    ),
    "NaN": (
        changed("stages.3.0.pwconv1.bias", lambda v: v / 0 * 0),
        r"damaged: stages\.3\.0\.pwconv1\.bias holds NaN or infinite",
    ),
    "infinite, in half precision": (
        changed("norm2.weight", lambda v: v.bfloat16() / 0),
        r"damaged: norm2\.weight holds NaN or infinite",
    ),
    "integers": (
        changed("norm2.weight", lambda v: v.char()),
        r"norm2\.weight is torch\.int8 in it",
    ),
    "two of them": (
        lambda w: {f"{p}.backbone.{k}": v for k, v in w.items() for p in ("a", "b")},
        r"holds 2 ConvNeXts, under 'a\.backbone\.', 'b\.backbone\.': name one as "
        r"init_cfg\.prefix",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit(tmp_path, case):
    weights, says = MISFITS[case]
    model, file = small(), tmp_path / "a.pth"
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.save(weights(small().state_dict()), file)
    with pytest.raises(InputError, match=rf"(?s)a\.pth.*{says}"):
        checkpoints.load_pretrained(model, str(file))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_prefix_of_nothing(tmp_path):
    torch.save(small().state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"no tensors below init_cfg\.prefix='x\.'"):
        checkpoints.load_pretrained(small(), str(tmp_path / "a.pth"), "x")


def test_stages_that_are_not_built_may_differ(tmp_path):
    """With out_indices (0, 1) the checkpoint's other stages are left alone."""
    source = ConvNeXt(DEEPER, layer_scale_init_value=1.0)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    model = small(out_indices=(0, 1))
    with logged() as messages:
        checkpoints.load_pretrained(model, str(tmp_path / "a.pth"))
    assert (
        "not used: downsample_layers (8), norm2 (2), norm3 (2), stages" in messages[0]
    )
    x = torch.rand(1, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(model(x), source(x)[:2], strict=True))


def test_other_init_cfg_is_mmengines():
    model = small(init_cfg=dict(type="Constant", layer="Conv2d", val=0.25))
    model.init_weights()
    assert (model.downsample_layers[0][0].weight == 0.25).all()


def test_grn_of_the_authors_shape(tmp_path):
    """(1, 1, 1, 4 C) in their V2 checkpoints, under ``model``."""
    source = ConvNeXt("atto", use_grn=True, out_indices=(3,))
    torch.nn.init.normal_(source.stages[2][1].grn.gamma)
    weights = {
        name: value[None, None, None] if ".grn." in name else value
        for name, value in source.state_dict().items()
    }
    torch.save(dict(model=weights), tmp_path / "v2.pt")
    checkpoint = dict(type="Pretrained", checkpoint=str(tmp_path / "v2.pt"))
    model = ConvNeXt("atto", use_grn=True, init_cfg=checkpoint)
    model.init_weights()
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(model(x)[3], source(x)[0])


def test_other_settings_of_pretrained_are_left_to_mmengine(tmp_path):
    """Configs give ``map_location``, which mmengine's initializer takes."""
    source, file = small(), tmp_path / "convnext.pth"
    torch.save(source.state_dict(), file)
    init_cfg = dict(type="Pretrained", checkpoint=str(file), map_location="cpu")
    model = small(init_cfg=init_cfg)
    model.init_weights()
    assert torch.equal(model.norm0.weight, source.norm0.weight)


def test_layer_scale_of_an_optimized_backbone(tmp_path):
    """It takes both forms. Where its own does not fit, the message says what to do."""
    source, image = small().eval(), torch.rand(1, 3, 32, 32)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    optimized = copy.deepcopy(source).optimize_for_inference()
    expected = source(image)

    def check(backbone):
        for mine, true in zip(backbone.eval()(image), expected, strict=True):
            assert torch.allclose(mine, true, rtol=1e-4, atol=1e-4)

    for weights in (source.state_dict(), optimized.state_dict()):
        torch.save(weights, tmp_path / "a.pth")
        alone = small().optimize_for_inference()
        checkpoints.load_pretrained(alone, str(tmp_path / "a.pth"))
        check(alone)
        whole = torch.nn.Module()
        whole.backbone = small().optimize_for_inference()
        whole.head = torch.nn.Conv2d(8, 2, 1)
        content = {f"backbone.{name}": weight for name, weight in weights.items()}
        torch.save({**content, **noise_of(whole.head)}, tmp_path / "whole.pth")
        load_checkpoint(whole, str(tmp_path / "whole.pth"), map_location="cpu")
        check(whole.backbone)
    with pytest.raises(InputError, match=r"set layer_scale_init_value=0\.0"):
        checkpoints.load_pretrained(small(), str(tmp_path / "a.pth"))
    followed = small(layer_scale_init_value=0.0)
    checkpoints.load_pretrained(followed, str(tmp_path / "a.pth"))
    check(followed)


def noise_of(head):
    return {f"head.{n}": torch.rand_like(p) for n, p in head.state_dict().items()}
