"""Which entry of a checkpoint is used: found by content, or chosen by a prefix."""

import re

import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.runner import load_checkpoint

from convnext_dense import ConvNeXt
from convnext_dense.errors import InputError

from ..helpers.mmengine_state import logged

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])


def small(**kwargs):
    return ConvNeXt(SMALL, layer_scale_init_value=1.0, **kwargs)


def weights(value=None):
    """Random weights, or weights of one value."""
    fill = torch.rand_like if value is None else lambda w: torch.full_like(w, value)
    return {name: fill(w) for name, w in small().state_dict().items()}


def below(prefix, content):
    return {f"{prefix}{name}": value for name, value in content.items()}


def optimizer():
    parameters = list(small().parameters())
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9).state_dict()


def loaded(tmp_path, content, **kwargs):
    """What a backbone's first gamma is after loading, and what was logged."""
    file = tmp_path / "a.pth"
    torch.save(content, file)
    model = small(init_cfg=dict(type="Pretrained", checkpoint=str(file), **kwargs))
    with logged() as messages:
        model.init_weights()
    return model.stages[0][0].gamma.mean().item(), messages


ENTRIES = {
    # name: the content around weights w, and the entry that is taken
    **{
        name: (lambda w, name=name: {name: w, "epoch": 3}, name)
        for name in (
            *("model_state_dict", "model_state", "net", "network", "weights"),
            *("backbone", "encoder", "params", "generator", "G", "student"),
            *("ema_state_dict", "model_weights", "my weights", "target_encoder"),
        )
    },
    **{  # an optimizer's entries have such words, too
        name: (lambda w, name=name: {name: w, "optimizer": {"exp_avg": w}}, name)
        for name in ("optimized_model", "optimal_weights", "scaler_net", "scheduled")
    },
    "under numbers": (lambda w: dict(models={0: w}), "models.0"),
    "deep": (
        lambda w: dict(a=dict(a=dict(a=[dict(a=dict(a=dict(a=w)))]))),
        "a.a.a.0.a.a.a",
    ),
    "ema.module": (lambda w: dict(ema=dict(module=w), last_epoch=3), "ema.module"),
    "ema.shadow": (lambda w: dict(ema=dict(shadow=w, decay=0.9)), "ema.shadow"),
    "in an entry": (lambda w: dict(model=dict(state_dict=w)), "model.state_dict"),
    "in a list": (lambda w: dict(models=[w, {"a": torch.ones(1)}]), "models.0"),
    "beside other weights": (
        lambda w: dict(backbone=w, head={"fc.weight": torch.ones(2)}),
        "backbone",
    ),
    "no ConvNeXt in the usual entry": (
        lambda w: dict(state_dict={"head.weight": torch.ones(2)}, net=w),
        "net",
    ),
    "an empty usual entry": (lambda w: dict(model=None, module={}, net=w), "net"),
    "an optimizer's copy": (
        lambda w: dict(optimizer=dict(exp_avg=w), opt_sched={"x": w}, net=w),
        "net",
    ),
    "detectron2's arrays": (
        lambda w: dict(params={n: v.numpy() for n, v in w.items()}),
        "params",
    ),
    "wrapped": (lambda w: dict(net=below("module._orig_mod.", w)), "net"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_the_entry_is_found_by_its_content(tmp_path, case):
    build, entry = ENTRIES[case]
    mean, messages = loaded(tmp_path, build(weights(0.25)))
    assert mean == 0.25
    assert f"a.pth, entry '{entry}': the authors' names, " in messages[-1]
    assert len(messages) == 1


@pytest.mark.parametrize("change", [lambda w: {0: w}, lambda w: {"a": {1: w}, "b": w}])
def test_entries_under_numbers_are_not_passed_over(tmp_path, change):
    content = change(weights(0.5))
    if len(content) == 1:
        assert loaded(tmp_path, content)[0] == 0.5
        return
    content["b"] = weights(0.25)
    with pytest.raises(InputError, match=r"under 'a\.1', 'b': name one"):
        loaded(tmp_path, content)
    assert loaded(tmp_path, content, prefix="a.1")[0] == 0.5


def test_weights_under_the_usual_keys_come_first(tmp_path):
    """Whatever else is in the file, and as it was before."""
    for content, says in (
        (
            dict(model=weights(1.0), model_ema=weights(2.0)),
            "'model' is used, model_ema",
        ),
        (
            dict(teacher=weights(1.0), student=weights(2.0)),
            "'teacher' is used, student",
        ),
        (dict(state_dict=weights(1.0), ema=weights(2.0)), "'state_dict' is used, ema"),
        (
            dict(state_dict_ema=weights(1.0), optimizer=optimizer()),
            "a.pth: the authors",
        ),
    ):
        mean, messages = loaded(tmp_path, content)
        assert mean == 1.0
        assert says in messages[0]


def test_training_from_such_a_file_through_mmengine(tmp_path):
    torch.save(dict(net=weights(0.25), opt=optimizer()), tmp_path / "a.pth")
    model = small()
    with logged() as messages:
        load_checkpoint(model, str(tmp_path / "a.pth"), logger="current")
    assert model.stages[0][0].gamma.mean() == 0.25
    assert "a.pth, entry 'net'" in messages[-1]


SEVERAL = {
    # the content, and the names that the message lists
    "BasicSR": (
        lambda a, b: dict(params=a, params_ema=b),
        ("params", "params_ema"),
    ),
    "in entries": (
        lambda a, b: dict(model=dict(state=a), ema=dict(shadow=b)),
        ("model.state", "ema.shadow"),
    ),
    "MoCo": (
        lambda a, b: dict(
            state_dict={**below("encoder_q.", a), **below("encoder_k.", b)}
        ),
        ("encoder_q.", "encoder_k."),
    ),
    "flat": (
        lambda a, b: {**below("student.backbone.", a), **below("teacher.backbone.", b)},
        ("student.backbone.", "teacher.backbone."),
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_the_advice_for_several_works(tmp_path, tool, case):
    build, names = SEVERAL[case]
    content = build(weights(0.25), weights(0.5))
    listed = ", ".join(map(repr, names))
    with pytest.raises(
        InputError,
        match=rf"a\.pth holds 2 ConvNeXts, under {re.escape(listed)}: name one as "
        r"init_cfg\.prefix$",
    ):
        loaded(tmp_path, content)
    for name, value in zip(names, (0.25, 0.5), strict=True):
        assert loaded(tmp_path, content, prefix=name)[0] == value

    arguments = ["convert_checkpoint", "a.pth", "out.safetensors", "--to", "timm"]
    done = tool(*arguments)
    assert done.code == 2
    assert f"under {listed}: name one as --prefix" in done.err
    done = tool(*arguments, "--prefix", names[1])
    assert done.code == 0, done.err
    converted = safetensors.torch.load_file(tmp_path / "out.safetensors")
    assert (converted["stages_0.blocks.0.gamma"] == 0.5).all()


def test_the_advice_for_a_whole_model_works(tmp_path, tool):
    """A detector with one backbone, and mmdet's semi-supervised checkpoint."""
    model = torch.nn.ModuleDict(dict(backbone=small(), neck=torch.nn.Linear(2, 2)))
    whole = model.state_dict()
    content = {
        **below("student.", whole),
        **{f"teacher.{n}": torch.full_like(w, 0.5) for n, w in whole.items()},
    }
    torch.save(dict(state_dict=content), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"holds 2 ConvNeXts") as e:
        load_checkpoint(model, str(tmp_path / "a.pth"))
    _, _, advice = str(e.value).partition(
        "the --prefix of convnext-dense convert-checkpoint "
    )
    command, _, then = advice.partition(", then give ")
    done = tool("convert_checkpoint", *command.replace("NAME", "teacher").split())
    assert done.code == 0, done.err
    load_checkpoint(model, str(tmp_path / then))
    assert all((w == 0.5).all() for w in model.state_dict().values())


def test_a_prefix_of_an_entry_and_of_names(tmp_path):
    content = dict(
        net=below("backbone.", weights(0.25)), ema=below("backbone.", weights(0.5))
    )
    assert loaded(tmp_path, content, prefix="ema.backbone")[0] == 0.5
    assert loaded(tmp_path, content, prefix="net")[0] == 0.25
    with pytest.raises(InputError, match=r"'net\.backbone\.', 'ema\.backbone\.': name"):
        loaded(tmp_path, content, prefix="backbone")
    with pytest.raises(
        InputError,
        match=r"no tensors below .*='x\.', only ema \(60\), net \(60\)\. Name",
    ):
        loaded(tmp_path, content, prefix="x")
    same = weights(0.25)
    copies = {name: value.clone() for name, value in same.items()}
    for other in (same, copies):  # which of two that are equal, need not be said
        shared = dict(params=same, params_ema=other)
        assert loaded(tmp_path, shared)[0] == 0.25
        assert loaded(tmp_path, shared, prefix="params_ema")[0] == 0.25
    # One entry has it: which one, need not be said.
    content["ema"] = below("encoder.", weights(0.5))
    assert loaded(tmp_path, content, prefix="encoder")[0] == 0.5


NO_WEIGHTS = {
    "an optimizer": (
        optimizer,
        r"only state, param_groups\. It has the state of an op",
    ),
    "an optimizer in an entry": (
        lambda: dict(optimizer_state_dict=optimizer(), epoch=3),
        r"It has the state of an optimizer\. Give the file with the model",
    ),
    "a log": (lambda: dict(loss=[1.0]), "holds no weights, only loss$"),
    "a list": (
        lambda: [weights()],
        r"holds a list, not weights\. Save the dict in it .*torch\.load\('.*a\.pth', "
        r"'cpu'\)\[0\]",
    ),
    "LoRA": (
        lambda: {"base_model.model.x.lora_A.weight": torch.ones(2, 2)},
        r"a LoRA adapter.*merge_and_unload",
    ),
    "ZeRO": (
        lambda: dict(module={name: torch.empty(0) for name in weights()}),
        r"only their names: .*DeepSpeed.*python zero_to_fp32\.py FOLDER weights\.pth",
    ),
    "sparse": (
        lambda: dict(net={**weights(), "norm0.weight": torch.ones(8).to_sparse()}),
        r"norm0\.weight is not an ordinary tensor.*tensor\.to_dense\(\)",
    ),
}


@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_what_has_no_weights_says_what_it_has(tmp_path, case):
    build, says = NO_WEIGHTS[case]
    with pytest.raises(InputError, match=rf"a\.pth.*{says}"):
        loaded(tmp_path, build())


def test_arrays_of_the_other_byte_order(tmp_path):
    swapped = {n: v.numpy().astype(">f4") for n, v in weights(0.25).items()}
    assert np.dtype(">f4") in {v.dtype for v in swapped.values()}
    assert loaded(tmp_path, dict(net=swapped))[0] == 0.25
