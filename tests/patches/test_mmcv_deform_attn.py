"""Deformable attention of mmcv's module, with this package's functions."""

import importlib
import sys
import types
import warnings

import pytest
import torch
from mmcv.ops import multi_scale_deform_attn as mmcv_attention

from convnext_dense.ops import deform_attn
from convnext_dense.patches import mmcv_deform_attn, mmcv_ops

from ..helpers.deform_attn import errors, inputs, truth

f32, bf16, f16 = torch.float32, torch.bfloat16, torch.float16
LEVELS = [(25, 42), (13, 21), (4, 5)]
FUNCTIONS = {mmcv_deform_attn.FUNCTION, mmcv_deform_attn.PYTORCH}
compiled = not mmcv_ops.is_stand_in(mmcv_attention.ext_module)


@pytest.fixture
def as_on_gpu(monkeypatch):
    """Tensors on the CPU are taken for tensors on a GPU."""
    monkeypatch.setattr(mmcv_deform_attn, "_on_gpu", lambda value: True)


def by_function(given, value, locations, weights):
    """What mmcv's module calls on a GPU, but for bf16 of the maintained stack."""
    if compiled:
        pytest.skip("this mmcv has compiled ops")
    return mmcv_attention.MultiScaleDeformableAttnFunction.apply(
        value, given.shapes, given.starts, locations, weights, 64
    )


def by_pytorch_function(given, value, locations, weights):
    """What the maintained stack's module calls on a GPU for bf16."""
    return mmcv_attention.multi_scale_deformable_attn_pytorch(
        value, given.shapes, locations, weights
    )


@pytest.mark.parametrize("attend", [by_function, by_pytorch_function])
@pytest.mark.parametrize(("dtype", "tolerance"), [(bf16, 4e-3), (f16, 5e-4)], ids=str)
def test_half_precision_values_with_exact_locations(
    as_on_gpu, attend, dtype, tolerance
):
    """Each gradient has the type of its input."""
    given = inputs(2, LEVELS, 9, 2, 8, 3)
    given = given._replace(value=given.value.to(dtype), grad=given.grad.to(dtype))
    leaves = given.value, given.locations, given.weights
    out = attend(given, *(leaf.requires_grad_() for leaf in leaves))
    grads = torch.autograd.grad(out, leaves, given.grad)
    assert [t.dtype for t in (out, *grads)] == [dtype, dtype, f32, f32]
    assert max(errors([out.detach(), *grads], truth(given))) <= tolerance


def test_module_under_autocast(as_on_gpu, monkeypatch):
    """Every product of the module is rounded to bf16, the positions are not."""
    attend, dtypes = deform_attn.attend, []

    def watched(*inputs):
        dtypes.append([inputs[0].dtype, inputs[2].dtype])
        return attend(*inputs)

    monkeypatch.setattr(deform_attn, "attend", watched)
    torch.manual_seed(0)
    module = mmcv_attention.MultiScaleDeformableAttention(
        64, 4, 3, 2, dropout=0.0, batch_first=True
    )
    torch.nn.init.normal_(module.attention_weights.weight, std=0.1)
    given = inputs(2, LEVELS, 50, 4, 16, 2)
    tensors = torch.randn(2, 50, 64), given.value.flatten(2), torch.rand(2, 50, 3, 2)

    def run():
        leaves = [tensors[0], tensors[1], *module.parameters()]
        out = module(
            tensors[0].requires_grad_(),
            value=tensors[1].requires_grad_(),
            identity=torch.zeros_like(tensors[0]),
            reference_points=tensors[2],
            spatial_shapes=given.shapes,
            level_start_index=given.starts,
        )
        return [out.detach(), *torch.autograd.grad(out.double().square().sum(), leaves)]

    with torch.autocast("cpu", bf16):
        mine = run()
    assert dtypes == [[bf16, f32]]
    monkeypatch.setattr(mmcv_deform_attn, "_on_gpu", lambda value: False)
    tensors = [t.detach().double() for t in tensors]
    module.double()
    true = run()
    shares = [
        ((a - b).norm() / b.norm()).item() for a, b in zip(mine, true, strict=True)
    ]
    assert shares[0] <= 8e-3
    assert max(shares) <= 0.08  # offsets of bf16 move some samples past a centre


def test_on_a_cpu_it_is_mmcvs():
    """An export traces it."""
    module = types.ModuleType(mmcv_deform_attn.MODULE)
    calls = []
    module.multi_scale_deformable_attn_pytorch = lambda *inputs: calls.append(inputs)
    module.ext_module = None
    mmcv_deform_attn.replace(module)
    module.multi_scale_deformable_attn_pytorch(
        torch.zeros(1),
        value_spatial_shapes=2,
        sampling_locations=3,
        attention_weights=4,
    )
    assert [call[1:] for call in calls] == [(2, 3, 4)]


def copy_of_module(ext_module=None):
    """mmcv's module with mmcv's own PyTorch function, before it is changed."""
    module = types.ModuleType(mmcv_deform_attn.MODULE)
    vars(module).update(vars(mmcv_attention))
    module.multi_scale_deformable_attn_pytorch = (
        mmcv_attention.multi_scale_deformable_attn_pytorch.__wrapped__
    )
    module.MultiScaleDeformableAttnFunction = "mmcv's"
    module.ext_module = ext_module or mmcv_attention.ext_module
    return module


def changes(module):
    before = dict(vars(module))
    mmcv_deform_attn.replace(module)
    return {name for name, value in vars(module).items() if value is not before[name]}


@pytest.mark.skipif(compiled, reason="this mmcv has compiled ops")
def test_what_is_replaced():
    module = copy_of_module()
    assert changes(module) == FUNCTIONS
    assert changes(module) == set()
    name = mmcv_deform_attn.FUNCTION
    assert getattr(module, name) is deform_attn.MultiScaleDeformableAttnFunction


def test_compiled_ops_are_never_replaced():
    module = copy_of_module(types.ModuleType("mmcv._ext"))
    assert changes(module) == {mmcv_deform_attn.PYTORCH}


def test_a_module_that_is_imported_already(monkeypatch):
    module = copy_of_module(types.ModuleType("mmcv._ext"))
    monkeypatch.setitem(sys.modules, mmcv_deform_attn.MODULE, module)
    finders = list(sys.meta_path)
    mmcv_deform_attn.install()
    function = module.multi_scale_deformable_attn_pytorch
    assert function is not copy_of_module().multi_scale_deformable_attn_pytorch
    assert sys.meta_path == finders


def test_a_module_that_is_imported_later(monkeypatch, tmp_path):
    """Python's own loader runs it, and finds its file."""
    file = tmp_path / "multi_scale_deform_attn.py"
    file.write_text(
        "ext_module = None\ndef multi_scale_deformable_attn_pytorch(): pass\n"
    )
    package = types.ModuleType("mmcv.ops")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "mmcv.ops", package)
    monkeypatch.delitem(sys.modules, mmcv_deform_attn.MODULE)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    mmcv_deform_attn.install()
    module = importlib.import_module(mmcv_deform_attn.MODULE)
    sys.modules.pop(mmcv_deform_attn.MODULE)
    assert module.__file__ == str(file)
    assert hasattr(module.multi_scale_deformable_attn_pytorch, "__wrapped__")


def test_no_warning():
    """mmcv warns on a GPU that bf16 falls back to another implementation."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        mmcv_deform_attn.install()
        warnings.warn(
            "MultiScaleDeformableAttnFunction does not support torch.bfloat16. "
            "Falling back to the PyTorch implementation.",
            stacklevel=1,
        )
    assert not heard
