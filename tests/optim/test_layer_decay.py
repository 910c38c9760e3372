"""Learning-rate groups against the authors', and with mmengine's own options."""

import copy
import json
import re

import pytest
import torch
from matplotlib.axes import Axes
from mmengine.optim import LinearLR, MultiStepLR, build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from convnext_dense import ConvNeXt
from convnext_dense.config.checks.custom_keys import check_custom_keys
from convnext_dense.config.options import load_config
from convnext_dense.engine.build import build_layer_decay, build_model
from convnext_dense.errors import InputError
from convnext_dense.models.archs import ARCHS
from convnext_dense.optim import layer_decay_plot
from convnext_dense.optim.custom_keys import key_of
from convnext_dense.optim.layer_decay import DECAY_TYPES, default_num_layers, layer_of

from ..helpers.decay_facts import FACTS, expected_layer, is_decayed
from ..helpers.mmengine_state import logged
from ..helpers.paths import ROOT, SHARED


class Detector(nn.Module):
    """A model with the modules of a detector and a segmentor that FACTS has."""

    def __init__(self, arch="tiny", **kwargs):
        super().__init__()
        self.backbone = ConvNeXt(arch, **kwargs)
        self.neck = nn.Module()
        self.neck.lateral_convs = nn.ModuleList([nn.Module()])
        self.neck.lateral_convs[0].conv = nn.Conv2d(8, 8, 1)
        self.decode_head = nn.Module()
        self.decode_head.conv_seg = nn.Conv2d(8, 8, 1)


def groups_of(model, lr=1e-4, weight_decay=0.05, **paramwise):
    decay = {} if weight_decay is None else dict(weight_decay=weight_decay)
    cfg = dict(
        constructor="LayerDecayOptimWrapperConstructor",
        optimizer=dict(type="AdamW", lr=lr, **decay),
        paramwise_cfg=paramwise,
    )
    return build_optim_wrapper(model, cfg).optimizer.param_groups


def by_name(model, **kwargs):
    """name -> (layer, lr scale, lr, weight decay), as the optimizer has them."""
    names = {id(p): n for n, p in model.named_parameters()}
    return {
        names[id(p)]: (g["layer"], g["lr_scale"], g["lr"], g["weight_decay"])
        for g in groups_of(model, **kwargs)
        for p in g["params"]
    }


@pytest.mark.parametrize("recipe", FACTS["recipes"])
@pytest.mark.parametrize("derived", [False, True])
def test_groups_equal_the_authors(recipe, derived):
    facts = FACTS["recipes"][recipe]
    with torch.device("meta"):
        model = Detector(facts["arch"])
    options = {} if derived else dict(num_layers=facts["num_layers"])
    rows = by_name(
        model,
        lr=facts["base_lr"],
        weight_decay=facts["base_weight_decay"],
        decay_rate=facts["decay_rate"],
        decay_type=facts["decay_type"],
        **options,
    )
    assert set(rows) == {name for name, _ in model.named_parameters()}
    for name, (layer, scale, lr, weight_decay) in rows.items():
        true_layer, true_scale = expected_layer(name, facts["layers"])
        assert layer == true_layer, name
        assert scale == pytest.approx(true_scale, rel=1e-12), name
        assert lr == pytest.approx(facts["base_lr"] * true_scale, rel=1e-12), name
        decayed = is_decayed(name)
        assert weight_decay == (facts["base_weight_decay"] if decayed else 0), name


@pytest.mark.skipif(not SHARED.exists(), reason="the full reference is not here")
def test_facts_are_the_full_reference():
    full = json.loads((SHARED / "reference/layer_decay.json").read_text())
    assert set(full) == set(FACTS["recipes"])
    for recipe, entry in full.items():
        for name, row in entry["params"].items():
            layers = FACTS["recipes"][recipe]["layers"]
            assert expected_layer(name, layers) == (row["layer"], row["lr_scale"])
            decayed = is_decayed(name)
            assert decayed == (row["weight_decay"] > 0)


@pytest.mark.parametrize(
    ("depths", "layers"),
    [((3, 3, 9, 3), 6), ((2, 2, 6, 2), 6), ((3, 3, 27, 3), 12), ((3, 4, 30, 3), 12)],
)
def test_default_num_layers(depths, layers):
    assert default_num_layers(depths, "layer_wise") == layers
    assert default_num_layers(depths, "stage_wise") == layers


DEPTHS = sorted({arch.depths for arch in ARCHS.values()} | {(3, 3, 60, 3)})


@pytest.mark.parametrize("depths", DEPTHS, ids=str)
@pytest.mark.parametrize("decay_type", DECAY_TYPES)
@pytest.mark.parametrize("num_layers", [None, 4, 6, 12])
def test_layers_never_exceed_the_last_stage(depths, decay_type, num_layers):
    """At any depth, no layer has a higher lr scale than a later one or the head."""
    if num_layers is None or decay_type == "block_wise":
        num_layers = default_num_layers(depths, decay_type)
    layers = [
        layer_of(f"backbone.stages.{s}.{b}.gamma", num_layers, decay_type, depths)
        for s, depth in enumerate(depths)
        for b in range(depth)
    ]
    assert layers == sorted(layers)
    assert layers[0] >= 1
    assert layers[-1] <= num_layers
    if decay_type == "block_wise":
        assert layers[-1] == num_layers


@pytest.mark.parametrize("arch", ARCHS)
def test_v2_of_every_depth(arch):
    """GRN has its block's lr scale and no weight decay, as in the authors' code."""
    with torch.device("meta"):
        model = Detector(arch, use_grn=True)
    rows = by_name(model, decay_rate=0.9)
    for stage, depth in enumerate(ARCHS[arch].depths):
        for block in range(depth):
            name = f"backbone.stages.{stage}.{block}."
            layer, scale, *_ = rows[name + "dwconv.weight"]
            for grn in ("grn.gamma", "grn.beta"):
                assert rows[name + grn] == (layer, scale, 1e-4 * scale, 0)


def test_block_wise_is_that_of_imagenet_s():
    """Tiny, by hand from the baselines' rule: 23 layers, 0 to 22."""
    with torch.device("meta"):
        by_parameter = by_name(Detector(), decay_rate=0.6, decay_type="block_wise")
    layers = {
        "backbone.downsample_layers.0": 0,
        "decode_head": 22,
        "backbone.norm3": 22,
    }
    first = 1
    for stage, depth in enumerate((3, 3, 9, 3)):
        if stage:
            layers[f"backbone.downsample_layers.{stage}"] = first
            first += 1
        for block in range(depth):
            layers[f"backbone.stages.{stage}.{block}"] = first
            first += 1
    assert first == 22
    for module, layer in layers.items():
        ((number, scale),) = {
            row[:2]
            for name, row in by_parameter.items()
            if name.startswith(f"{module}.")
        }
        assert number == layer, module
        assert scale == pytest.approx(0.6 ** (22 - layer), rel=1e-12), module


def test_works_from_both_toolboxes_scopes_and_schedules_scale():
    for scope in ("mmdet", "mmseg"):
        with DefaultScope.overwrite_default_scope(scope):
            groups = groups_of(Detector("atto"), decay_rate=0.7)
        assert len({g["layer"] for g in groups}) == 7


def small(**kwargs):
    return Detector(dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8]), **kwargs)


def test_frozen_parameters_are_left_out():
    model = small(frozen_stages=2)
    rows = by_name(model, decay_rate=0.7)
    assert set(rows) == {n for n, p in model.named_parameters() if p.requires_grad}
    assert "backbone.stages.1.0.gamma" not in rows


def test_custom_keys_multiply_on_top():
    keys = {
        "stages.3": dict(lr_mult=0.1, decay_mult=2.0),
        "decode_head": dict(lr_mult=10.0),
    }
    plain = by_name(small(), decay_rate=0.5)
    custom = by_name(small(), decay_rate=0.5, custom_keys=keys)
    for name, (layer, scale, lr, weight_decay) in custom.items():
        lr_mult = 0.1 if "stages.3" in name else 10 if "decode_head" in name else 1
        assert layer == plain[name][0]
        assert scale == pytest.approx(plain[name][1] * lr_mult)
        assert lr == pytest.approx(plain[name][2] * lr_mult)
        assert lr == pytest.approx(1e-4 * scale)
        # Without decay_mult, one-dimensional parameters keep having none.
        decay = 0.1 if "stages.3" in name else plain[name][3]
        assert weight_decay == pytest.approx(decay)


def test_the_longest_custom_key_applies():
    """Of equally long ones the first in the alphabet, as in mmengine."""
    keys = ["backbone", "backbone.stages", "stages.0", "stages.x", "tages.0."]
    names = ["backbone.norm0.weight", "backbone.stages.1.0.gamma", "stages.0.gamma"]
    assert [key_of(name, keys) for name in names] == [
        "backbone",
        "backbone.stages",
        "stages.0",
    ]
    assert key_of("neck.weight", keys) is None


DINO = ROOT / "configs/det/dino_4scale_convnext_t_coco.py"
DETR_KEYS = {"backbone": 0.1, "sampling_offsets": 0.1, "label_embedding": 1.0}


@pytest.fixture(scope="module")
def detr():
    """DINO with layer decay, and the backbone and sampling offsets at a tenth."""
    cfg = load_config(str(DINO), [])
    cfg.optim_wrapper.paramwise_cfg = dict(
        decay_rate=0.8,
        custom_keys={
            "backbone": dict(lr_mult=0.1),
            "sampling_offsets": dict(lr_mult=0.1),
            "label_embedding": dict(decay_mult=0.0),
        },
    )
    with logged() as messages:
        groups = build_layer_decay(cfg)
    return groups, "\n".join(messages)


def test_detr_has_layer_decay_and_several_rates(detr):
    """Base rate times the layer's scale times the key's factor, for each parameter."""
    groups, _ = detr
    seen = set()
    for group in groups:
        for name, param in zip(group["param_names"], group["params"], strict=True):
            key = key_of(name, DETR_KEYS)
            layer = layer_of(name, 6, "layer_wise")
            scale = 0.8 ** (7 - layer) * DETR_KEYS.get(key, 1.0)
            assert group["lr"] == pytest.approx(1e-4 * scale, rel=1e-12), name
            assert group["lr_scale"] == pytest.approx(scale, rel=1e-12), name
            decayed = param.ndim > 1 and key != "label_embedding"
            assert group["weight_decay"] == (1e-4 if decayed else 0), name
            seen.add(key)
    assert seen == {*DETR_KEYS, None}


def test_table_has_a_row_for_each_rate(detr):
    groups, text = detr
    rows = re.findall(r"^ +(\d+) +([\d.]+) +([\d,]+) +(.+)$", text, re.MULTILINE)
    heads = [row for row in rows if row[0] == "7"]
    assert [row[1] for row in heads] == ["0.100000", "1.000000"]
    assert heads[0][3] == "norm1, norm2, norm3, sampling_offsets"
    assert "bbox_head" in heads[1][3]
    count = sum(int(row[2].replace(",", "")) for row in rows)
    assert count == sum(p.numel() for group in groups for p in group["params"])
    assert [row[1] for row in rows[:2]] == [f"{0.1 * 0.8 ** (7 - i):f}" for i in (0, 1)]


def test_schedulers_keep_the_scales(detr):
    groups, _ = detr
    optimizer = torch.optim.AdamW([dict(group) for group in groups], lr=1e-4)
    base = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1e-4)
    for wrapped in (optimizer, base):
        schedulers = [
            LinearLR(wrapped, start_factor=0.1, end=2),
            MultiStepLR(wrapped, milestones=[3]),
        ]
        for _ in range(4):
            wrapped.step()
            for scheduler in schedulers:
                scheduler.step()
    (rate,) = (group["lr"] for group in base.param_groups)
    assert rate == pytest.approx(1e-5)
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(rate * group["lr_scale"])


def test_plot_has_a_point_for_each_rate(detr, tmp_path, monkeypatch):
    drawn = []
    scatter = Axes.scatter

    def noting(axes, x, y, **kwargs):
        drawn.append((x, y))
        return scatter(axes, x, y, **kwargs)

    monkeypatch.setattr(Axes, "scatter", noting)
    layer_decay_plot.draw(detr[0], tmp_path / "x.svg", "DINO")
    assert len(drawn) == 4 + 18 + 1
    assert sorted(drawn[-1][1]) == pytest.approx([0.1, 1.0])
    assert drawn[0][1] == pytest.approx([0.1 * 0.8**7])


def test_norm_decay_mult_overrides_the_default():
    rows = by_name(small(), decay_rate=0.5, norm_decay_mult=1.0)
    assert rows["backbone.norm0.weight"][3] == 0.05
    assert rows["backbone.stages.0.0.gamma"][3] == 0


def test_bypass_duplicate():
    model = small()
    model.again = model.decode_head.conv_seg  # shared, as some heads do
    with pytest.raises(InputError, match=r"decode_head.*bypass_duplicate=True"):
        groups_of(model, decay_rate=0.5)
    groups = groups_of(model, decay_rate=0.5, bypass_duplicate=True)
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_custom_keys_of_frozen_parameters_are_known():
    """A key that applies to frozen parameters alone is no mistake."""
    keys = {"backbone.stages": dict(lr_mult=0.1)}
    groups = groups_of(small(frozen_stages=4), decay_rate=0.5, custom_keys=keys)
    assert {group["lr_scale"] for group in groups} == {1.0}


def test_default_constructor_takes_a_detr_config():
    """mmengine's constructor gives this backbone a tenth of the rate."""
    cfg = load_config(str(DINO))
    model = build_model(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name, param in model.named_parameters():
        rate = 1e-5 if name.startswith("backbone.") else 1e-4
        assert rates[id(param)] == pytest.approx(rate), name


def test_default_constructor_with_a_misspelt_key():
    """mmengine says nothing about it; a run warns."""
    cfg = load_config(
        str(DINO),
        ["optim_wrapper.paramwise_cfg.custom_keys.samplng_offsets.lr_mult=0.1"],
    )
    model = small()
    model.sampling_offsets = nn.Linear(2, 2)
    with logged() as messages:
        check_custom_keys(cfg, model)
    (message,) = messages
    assert "samplng_offsets (did you mean sampling_offsets?)" in message


def test_unwraps_a_distributed_model():
    wrapped = nn.Module()
    wrapped.module = small()
    assert {g["layer"] for g in groups_of(wrapped, decay_rate=0.5)} == {
        0,
        1,
        2,
        3,
        6,
        7,
    }


def test_without_weight_decay():
    groups = groups_of(small(), weight_decay=None, decay_rate=0.5)
    assert all(g["lr"] == pytest.approx(1e-4 * g["lr_scale"]) for g in groups)


def test_logs_a_short_table_and_not_every_name():
    with logged() as messages:
        groups_of(Detector("small", frozen_stages=1), decay_rate=0.7)
    lines = "\n".join(messages).splitlines()
    assert 12 <= len(lines) <= 16
    assert re.search(r"12 +0\.70* .*stages\.3", "\n".join(lines))


@pytest.mark.parametrize(
    ("paramwise", "says"),
    [
        (dict(), "decay_rate"),
        (dict(decay_rate=1.5), "decay_rate"),
        (dict(decay_rate="0.7"), "decay_rate"),
        (
            dict(decay_rate=0.7, decay_type="layerwise"),
            "layer_wise, stage_wise, block_wise",
        ),
        (dict(decay_rate=0.7, num_layers=0), "num_layers"),
        (
            dict(decay_rate=0.7, num_layers=12, decay_type="block_wise"),
            "drop num_layers",
        ),
        (dict(decay_rate=0.7, norm_decay=0.0), "unknown norm_decay"),
        (
            dict(decay_rate=0.7, custom_keys=dict(decode_heads=dict(lr_mult=0.1))),
            r"contains decode_heads \(did you mean decode_head\?\); correct the key",
        ),
        (
            dict(decay_rate=0.7, custom_keys=dict(norm=dict(lr_mult="0.1"))),
            "custom_keys: lr_mult of norm is '0.1'",
        ),
    ],
)
def test_wrong_options(paramwise, says):
    with pytest.raises(InputError, match=says):
        groups_of(small(), **(paramwise or dict(decay_type="layer_wise")))


@pytest.mark.parametrize("options", [{}, dict(num_layers=6)])
def test_model_without_convnext(options):
    model = small()
    model.backbone = nn.Conv2d(1, 1, 1)
    with pytest.raises(InputError, match="`backbone` is a ConvNeXt"):
        groups_of(model, decay_rate=0.7, **options)


def test_another_librarys_convnext():
    """Parameters of the authors' names, but no ``depths``: ``num_layers`` is enough."""
    model = small()
    del model.backbone.depths
    groups = groups_of(model, decay_rate=0.7, num_layers=6)
    assert {group["layer"] for group in groups} == {0, 1, 2, 3, 6, 7}
    for options in ({}, dict(decay_type="block_wise")):
        with pytest.raises(InputError, match="give num_layers"):
            groups_of(model, decay_rate=0.7, **options)


def test_options_are_not_changed():
    options = dict(decay_rate=0.7, custom_keys=dict(neck=dict(lr_mult=2.0)))
    before = copy.deepcopy(options)
    groups_of(small(), **options)
    assert options == before


def test_tool_prints_the_table_and_draws_it(tool, tmp_path):
    config = ROOT / "configs/det/cascade_mask_rcnn_convnext_s_coco.py"
    picture = tmp_path / "decay.png"
    done = tool("show_layer_decay", config, "--plot", picture)
    assert done.code == 0
    rows = re.findall(r"^ +(\d+) +([\d.]+) +[\d,]+ +(.+)$", done.out, re.MULTILINE)
    assert [int(layer) for layer, *_ in rows] == list(range(14))
    for layer, scale, _ in rows:
        assert float(scale) == pytest.approx(0.7 ** (13 - int(layer)), abs=1e-6)
    assert rows[5][2] == "stages.2.6-8"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["configs/seg/upernet_convnext_atto_shapes.py"], "has no layer decay"),
        (["configs/seg/nothing.py"], "no config at"),
        (
            ["configs/seg/upernet_convnext_t_ade20k.py", "--plot", "no/where.png"],
            "there is no folder",
        ),
        (["configs/seg/upernet_convnext_t_ade20k.py", "--plot", "x.doc"], "x.doc"),
    ],
)
def test_tool_mistakes(tool, arguments, says):
    config, *rest = arguments
    done = tool("show_layer_decay", ROOT / config, *rest)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err
