"""Output strides 8 and 16 against timm's, and what they leave as it was."""

import copy

import pytest
import torch

from convnext_dense import ConvNeXt
from convnext_dense.errors import InputError
from convnext_dense.models.block import Block
from convnext_dense.models.fused.gpu.modules import StageModules, is_standard

from ..helpers.comparing import assert_same
from ..helpers.peers import randomised, timm_name, timm_stage_maps, timm_twin

SMALL = dict(depths=[1, 1, 2, 2], channels=[8, 16, 24, 32])
V1, V2 = dict(layer_scale_init_value=1.0), dict(use_grn=True)


def model_of(output_stride, **kwargs):
    return randomised(lambda: ConvNeXt(SMALL, output_stride=output_stride, **kwargs))


def image(height=75, width=101, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, height, width, generator=generator, dtype=dtype)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("version", [V1, V2], ids=["V1", "V2"])
@pytest.mark.parametrize(
    ("dtype", "lean", "with_cp", "tolerance"),
    [
        (torch.float64, True, False, 1e-12),
        (torch.float64, False, False, 1e-12),
        (torch.float32, True, True, 1e-5),
    ],
    ids=["lean", "reference", "with_cp"],
)
def test_equals_timm(
    output_stride, version, dtype, lean, with_cp, tolerance, monkeypatch
):
    """The maps of all stages, and the gradients of all parameters and the image."""
    monkeypatch.setattr(Block, "lean", lean)
    ours = model_of(output_stride, with_cp=with_cp, **version).to(dtype)
    twin = timm_twin(copy.deepcopy(ours).double(), output_stride)
    x, exact_x = (image(dtype=d).requires_grad_() for d in (dtype, torch.float64))
    exact_x.data.copy_(x.data)
    expected = [
        copy.deepcopy(getattr(ours, f"norm{stage}")).double()(stage_map)
        for stage, stage_map in enumerate(timm_stage_maps(twin, exact_x))
    ]
    maps = ours(x)
    for mine, theirs in zip(maps, expected, strict=True):
        assert_same(mine, theirs, tolerance)
    probes = [torch.randn_like(m) for m in expected]
    for outputs in (maps, expected):
        sum((m * p).sum() for m, p in zip(outputs, probes, strict=True)).backward()
    assert_same(x.grad, exact_x.grad, tolerance)
    gradients = {name: p.grad for name, p in twin.named_parameters()}
    for name, parameter in ours.named_parameters():
        if not name.startswith("norm"):
            assert_same(parameter.grad, gradients[timm_name(name)], tolerance)


@pytest.mark.parametrize(
    ("output_stride", "strides"), [(8, [4, 8, 8, 8]), (16, [4, 8, 16, 16])]
)
@pytest.mark.parametrize("size", [(32, 32), (47, 101)])
def test_shapes_follow_feature_info(output_stride, strides, size):
    for out_indices in [(0, 1, 2, 3), (1, 3), (2,)]:
        model = model_of(output_stride, out_indices=out_indices, **V1)
        assert [info.stride for info in model.feature_info] == [
            strides[i] for i in out_indices
        ]
        maps = model(image(*size, torch.float32))
        for out, info in zip(maps, model.feature_info, strict=True):
            assert out.shape[2:] == tuple(side // info.stride for side in size)
            assert out.is_contiguous(memory_format=torch.channels_last)


def test_a_checkpoint_of_stride_32_loads():
    ours = model_of(32, **V1)
    for output_stride in (8, 16):
        model_of(output_stride, **V1).load_state_dict(ours.state_dict())


def test_keeps_what_the_lean_block_keeps():
    """For the backward pass: the block's input and GELU's, dilated or not."""

    def kept(dilation):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.nbytes)
            return tensor

        block = Block(24, dilation=dilation)
        x = torch.rand(1, 24, 32, 32).contiguous(memory_format=torch.channels_last)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            block(x.requires_grad_())
        return sum(sizes)

    assert kept(4) == kept(1)


def test_half_precision_and_drop_path():
    model = model_of(8, drop_path_rate=0.5, **V1).train()
    with torch.autocast("cpu", torch.bfloat16):
        maps = model(image(dtype=torch.float32))
    sum(m.float().square().mean() for m in maps).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_kernels_take_the_stages_that_are_not_dilated():
    """The decision for a GPU; each stage alone, with and without its entrance."""
    for output_stride, taken in ((32, 4), (16, 3), (8, 2)):
        model = model_of(output_stride, **V1)
        for i, (entrance, blocks, norm) in enumerate(model._stage_modules()):
            assert is_standard(StageModules(entrance, blocks, norm)) == (i < taken)
            assert is_standard(StageModules(None, blocks, norm)) == (i < taken)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_gpu_computes_the_same(output_stride):
    """Kernels for the first stages, modules for the dilated ones."""
    ours = model_of(output_stride, **V1)
    model = copy.deepcopy(ours).cuda()
    x = image(dtype=torch.float32)
    expected, maps = ours(x), model(x.cuda())
    for outputs in (expected, maps):
        sum(m.square().mean() for m in outputs).backward()
    for mine, theirs in zip(maps, expected, strict=True):
        assert_same(mine.cpu(), theirs, 5e-3)
    for mine, theirs in zip(model.parameters(), ours.parameters(), strict=True):
        assert_same(mine.grad.cpu(), theirs.grad, 5e-3)


@pytest.mark.parametrize("value", [4, 64, 0, 8.0, "8", None, True])
def test_another_output_stride_is_an_error(value):
    with pytest.raises(InputError, match="give 8, 16 or 32"):
        ConvNeXt(SMALL, output_stride=value)
