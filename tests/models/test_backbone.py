"""The backbone against timm's in float64; its shapes, freezing and errors."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from convnext_dense import ConvNeXt
from convnext_dense.errors import InputError
from convnext_dense.models.archs import ARCHS
from convnext_dense.models.block import GRN, Block

from ..helpers.comparing import assert_same
from ..helpers.peers import randomised, timm_name, timm_stage_maps, timm_twin

SMALL = dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32])


def small(**kwargs):
    torch.manual_seed(0)
    return ConvNeXt(SMALL, layer_scale_init_value=1.0, **kwargs)


def stage_maps(model, x):
    """The stages' outputs before the output norms."""
    maps = []
    hooks = [
        stage.register_forward_hook(lambda m, args, out: maps.append(out))
        for stage in model.stages
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return maps


NCHW, NHWC = torch.contiguous_format, torch.channels_last
ALL_MODES = [(NCHW, False), (NHWC, False), (NCHW, True), (NHWC, True)]
TWO_MODES = [(NCHW, True), (NHWC, False)]  # enough for all the others
V1, V2 = dict(layer_scale_init_value=1.0), dict(use_grn=True)


@pytest.mark.parametrize(
    ("version", "arch", "modes"),
    [
        (V1, "atto", ALL_MODES),
        (V1, "tiny", TWO_MODES),
        (V1, "small", TWO_MODES),
        (V1, "wide base", TWO_MODES),
        (V1, "wide large", TWO_MODES),
        (V1, "wide xlarge", TWO_MODES),
        (V2, "atto", ALL_MODES),
        (V2, "femto", TWO_MODES),
        (V2, "pico", TWO_MODES),
        (V2, "nano", TWO_MODES),
        (V2, "tiny", TWO_MODES),
        (V2, "wide base", TWO_MODES),
        (V2, "wide large", TWO_MODES),
        (V2, "wide huge", TWO_MODES[1:]),
    ],
    ids=lambda value: {id(V1): "V1", id(V2): "V2"}.get(id(value)),
)
def test_equals_timm_forward_and_backward(version, arch, modes):
    """Wide architectures have few blocks here; ``small`` has all 27 of its stage."""
    if arch.startswith("wide "):
        channels = ARCHS[arch.removeprefix("wide ")].channels
        arch = dict(depths=[1, 1, 2, 1], channels=channels)
    equals_timm(version, arch, modes)


@pytest.mark.parametrize("version", [V1, V2], ids=["V1", "V2"])
def test_reference_equals_timm_forward_and_backward(version, monkeypatch):
    monkeypatch.setattr(Block, "lean", False)
    equals_timm(version, "atto", ALL_MODES)


def equals_timm(version, arch, modes):
    ours = randomised(lambda: ConvNeXt(arch, **version))
    twin = timm_twin(ours).double()
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))

    expected = timm_stage_maps(twin, x.double())
    probes = [torch.randn(m.shape) / m.numel() ** 0.5 for m in expected]
    sum((m * p).sum() for m, p in zip(expected, probes, strict=True)).backward()
    gradients = {name: p.grad for name, p in twin.named_parameters()}

    for memory_format, with_cp in modes:
        for block in (b for stage in ours.stages for b in stage):
            block.with_cp = with_cp
        ours.zero_grad()
        maps = stage_maps(ours, x.contiguous(memory_format=memory_format))
        for mine, theirs in zip(maps, expected, strict=True):
            assert_same(mine, theirs)
        sum((m * p).sum() for m, p in zip(maps, probes, strict=True)).backward()
        for name, parameter in ours.named_parameters():
            if not name.startswith("norm"):
                assert_same(parameter.grad, gradients[timm_name(name)])


@pytest.mark.parametrize("version", [V1, V2], ids=["V1", "V2"])
def test_optimize_for_inference_keeps_the_maps(version):
    model = randomised(lambda: ConvNeXt("atto", frozen_stages=1, **version))
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    before = model(x)
    assert model.optimize_for_inference() is model
    assert not any(name.endswith("stages.0.0.gamma") for name in model.state_dict())
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training
    for mine, theirs in zip(model(x), before, strict=True):
        assert_same(mine, theirs)
        assert not mine.requires_grad
    for again, mine in zip(model.optimize_for_inference()(x), model(x), strict=True):
        assert_same(again, mine)


def test_grn_is_algorithm_1():
    """arXiv 2301.00808, algorithm 1, in float64 and channels first."""
    torch.manual_seed(0)
    grn, x = GRN(6), torch.randn(2, 5, 7, 6)
    assert torch.equal(grn(x), x)  # its initial gamma and beta are 0: the identity
    nn.init.normal_(grn.gamma)
    nn.init.normal_(grn.beta)
    y = x.double().permute(0, 3, 1, 2)
    strength = y.square().sum((2, 3), keepdim=True).sqrt()
    ratio = strength / (strength.mean(1, keepdim=True) + 1e-6)
    gamma, beta = (p.double()[:, None, None] for p in (grn.gamma, grn.beta))
    expected = (gamma * (y * ratio) + beta + y).permute(0, 2, 3, 1)
    assert (grn(x) - expected).abs().max().item() <= 1e-5


def test_grn_keeps_half_precision_under_autocast():
    model = ConvNeXt(SMALL, use_grn=True)
    seen = []
    for block in (b for stage in model.stages for b in stage):
        nn.init.normal_(block.grn.gamma)
        block.grn.register_forward_hook(lambda m, args, out: seen.append(out.dtype))
    x = torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x)
    assert set(seen) == {torch.bfloat16}
    # Six blocks with about ten roundings to bf16 each, of at most 0.4 % of a value.
    for mine, full in zip(half, model(x), strict=True):
        assert (mine - full).abs().max().item() <= 0.05 * full.abs().max().item()


def test_grn_replaces_layer_scale_unless_asked_for():
    names = set(ConvNeXt(SMALL, use_grn=True).state_dict())
    assert "stages.0.0.grn.gamma" in names
    assert "stages.0.0.gamma" not in names
    both = ConvNeXt(SMALL, use_grn=True, layer_scale_init_value=1.0).state_dict()
    assert {"stages.0.0.grn.beta", "stages.0.0.gamma"} <= set(both)
    assert (ConvNeXt(SMALL).stages[0][0].gamma == 1e-6).all()


def test_output_norms_are_layer_norms_over_channels():
    model = small()
    with torch.no_grad():
        for i in range(4):
            norm = getattr(model, f"norm{i}")
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    x = torch.rand(2, 3, 64, 64)
    for i, (out, raw) in enumerate(zip(model(x), stage_maps(model, x), strict=True)):
        norm, raw = getattr(model, f"norm{i}"), raw.double()
        mean, var = raw.mean(1, keepdim=True), raw.var(1, keepdim=True, correction=0)
        expected = (raw - mean) / (var + 1e-6).sqrt()
        expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
        assert (out - expected).abs().max().item() <= 1e-5


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (224, 224), (100, 321)])
def test_shapes_follow_feature_info(size):
    model = small()
    maps = model(torch.rand(2, 3, *size))
    assert [tuple(i) for i in model.feature_info] == [
        (8, 4),
        (16, 8),
        (24, 16),
        (32, 32),
    ]
    for out, info in zip(maps, model.feature_info, strict=True):
        assert out.shape == (2, info.channels, *(side // info.stride for side in size))
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_contiguous_maps_for_heads_that_call_view():
    model, images = small(), torch.rand(2, 3, 64, 96)
    contiguous = small(channels_last=False)
    contiguous.load_state_dict(model.state_dict())
    maps, expected = contiguous(images), model(images)
    assert all(map(torch.equal, maps, expected))
    sum(feature_map.view(-1).pow(3).sum() for feature_map in maps).backward()
    sum(feature_map.pow(3).sum() for feature_map in expected).backward()
    for a, b in zip(contiguous.parameters(), model.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("out_indices", "kept"), [((0, 2), (0, 2)), (-1, (3,)), ([2, 1], (1, 2))]
)
def test_out_indices(out_indices, kept):
    model = small(out_indices=out_indices)
    maps = model(torch.rand(1, 3, 64, 64))
    everything = small()(torch.rand(1, 3, 64, 64))
    assert [m.shape for m in maps] == [everything[i].shape for i in kept]
    # DDP needs a gradient for every parameter.
    sum(m.square().sum() for m in maps).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    model = small().to(dtype)
    assert all(m.dtype == dtype for m in model(torch.rand(1, 3, 64, 64, dtype=dtype)))


def test_other_in_channels():
    assert small(in_channels=5)(torch.rand(1, 5, 32, 32))[0].shape == (1, 8, 8, 8)


def test_parameter_names_are_the_authors():
    names = set(small().state_dict())
    assert {
        "downsample_layers.0.0.weight",
        "downsample_layers.0.1.bias",
        "downsample_layers.3.0.weight",
        "downsample_layers.3.1.weight",
        "stages.2.1.gamma",
        "stages.2.1.dwconv.weight",
        "stages.2.1.norm.weight",
        "stages.2.1.pwconv1.weight",
        "stages.2.1.pwconv2.bias",
        "norm3.weight",
    } <= names
    assert (
        "stages.0.0.gamma" not in ConvNeXt(SMALL, layer_scale_init_value=0).state_dict()
    )


def test_parameter_count_of_tiny():
    with torch.device("meta"):
        model = ConvNeXt("tiny")
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(27.82e6, abs=5e3)


def test_initialisation():
    model = ConvNeXt("atto", layer_scale_init_value=0.5)
    assert model.stages[1][0].pwconv1.weight.std().item() == pytest.approx(
        0.02, rel=0.1
    )
    assert model.stages[1][0].pwconv1.bias.abs().max() == 0
    assert (model.stages[1][0].gamma == 0.5).all()


def test_drop_path_grows_with_depth_and_drops_whole_samples():
    model = ConvNeXt(SMALL, drop_path_rate=0.4, layer_scale_init_value=1.0)
    rates = [block.drop_path.p for stage in model.stages for block in stage]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    block = model.stages[3][0].train()
    torch.manual_seed(0)
    x = torch.rand(200, 32, 1, 1)
    branch = block(x) - x
    whole = block.eval()(x) - x
    dropped = (branch == 0).flatten(1).all(1)
    assert 50 < dropped.sum() < 110  # 80 on average
    kept = ~dropped
    assert torch.allclose(branch[kept], whole[kept] / 0.6, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("frozen", [-1, 0, 1, 2, 4])
def test_frozen_stages(frozen):
    model = small(frozen_stages=frozen, drop_path_rate=0.5).train()
    for i in range(4):
        for module in (model.downsample_layers[i], model.stages[i]):
            assert module.training == (i >= frozen)
            assert all(p.requires_grad == (i >= frozen) for p in module.parameters())
    assert all(p.requires_grad for p in model.norm0.parameters())


def test_gradient_checkpointing_repeats_drop_path():
    grads = []
    for with_cp in (False, True):
        model = small(with_cp=with_cp, drop_path_rate=0.5).train()
        torch.manual_seed(3)
        model(torch.ones(4, 3, 64, 64))[3].square().sum().backward()
        grads.append([p.grad for p in model.stages.parameters()])
    for a, b in zip(*grads, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_resolves_from_both_toolboxes_scopes(scope):
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(
            dict(
                type="ConvNeXt",
                arch="atto",
                out_indices=[0, 1, 2, 3],
                drop_path_rate=0.4,
                layer_scale_init_value=1.0,
                gap_before_final_norm=False,
                frozen_stages=0,
                with_cp=False,
            )
        )
    assert isinstance(model, ConvNeXt)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        (dict(arch="tiney"), "tiney.*tiny, small, base"),
        (dict(arch=dict(depths=[3, 3, 9])), "depths and channels"),
        (dict(arch=dict(depths=[1, 1, 1, 0], channels=[8, 8, 8, 8])), "positive"),
        (dict(arch=7), "depths and channels"),
        (dict(out_indices=()), "at least one"),
        (dict(out_indices=(0, 4)), "0 to 3"),
        (dict(out_indices=-5), "0 to 3"),
        (dict(drop_path_rate=-0.1), "probability"),
        (dict(drop_path_rate=1.0), "probability"),
        (dict(frozen_stages=5), "at most 4"),
        (dict(gap_before_final_norm=True), "classification"),
        (dict(init_cfg=[dict(type="Pretrained", checkpoint="x")]), "alone"),
    ],
)
def test_wrong_arguments(kwargs, says):
    with pytest.raises(InputError, match=f"(?s){says}"):
        ConvNeXt(**kwargs)


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1)])
def test_image_too_small(size):
    with pytest.raises(InputError, match=f"{size[0]} x {size[1]}.*at least 32"):
        small()(torch.rand(1, 3, *size))


@pytest.mark.parametrize("arch", ARCHS)
def test_every_arch_is_timms_of_that_name(arch):
    """The blocks and channels of timm's model of that name, and its norms' eps.

    An architecture that timm does not have is skipped.
    """
    timm = pytest.importorskip("timm")
    twins = dict(V1=f"convnext_{arch}", V2=f"convnextv2_{arch}")
    twins = {version: name for version, name in twins.items() if timm.is_model(name)}
    if not twins:
        pytest.skip(f"timm has no ConvNeXt named {arch}")
    for version, name in twins.items():
        with torch.device("meta"):
            ours = ConvNeXt(arch, **(V1 if version == "V1" else V2))
            theirs = timm.create_model(name, num_classes=0)
        assert {
            timm_name(key): value.numel()  # timm's atto to nano have 1x1 convolutions
            for key, value in ours.state_dict().items()
            if not key.startswith("norm")
        } == {
            key: value.numel()
            for key, value in theirs.state_dict().items()
            if not key.startswith("head.")
        }
        (eps,) = {m.eps for m in theirs.modules() if hasattr(m, "normalized_shape")}
        assert {m.eps for m in ours.modules() if hasattr(m, "eps")} == {eps}
