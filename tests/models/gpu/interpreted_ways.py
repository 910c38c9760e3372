"""The choice of a way, run with Triton's interpreter by test_stages.py."""

import pytest
import torch

from convnext_dense import ConvNeXt
from convnext_dense.errors import InputError
from convnext_dense.models.fused.gpu import backward, forward, proof, timing, ways
from convnext_dense.models.fused.gpu.description import DOWNSAMPLE, StageSpec, Types
from convnext_dense.models.fused.gpu.nvrtc import Unavailable
from convnext_dense.models.fused.gpu.plan import plans_for
from convnext_dense.models.fused.gpu.stage import stage_of

f32 = torch.float32
SPEC = StageSpec(DOWNSAMPLE, 8, 16, 3, True, False, True, 1e-6)
TYPES = Types(f32, f32, f32)
STRIDES = (32, 4, 2, 1)
USE = ways.Use(rows=60, width=6, drop=True, normed=f32, train=True)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Forget all choices, and compute convolutions in PyTorch: the interpreter is slow.

    The value is the list of logged messages.
    """
    logged = []
    monkeypatch.setenv(ways.VARIABLE, ways.TRITON)
    monkeypatch.setattr(ways, "_choices", {})
    monkeypatch.setattr(ways, "_log", logged.append)
    monkeypatch.setattr(
        ways, "_plans", lambda spec, *_: plans_for(spec.channels, f32, False, "cuda")
    )
    stage_of.cache_clear()
    yield logged
    stage_of.cache_clear()


def choose():
    return ways.choose(SPEC, TYPES, STRIDES, None, USE)


def test_kernels_are_checked_once(fresh, monkeypatch):
    proofs = []
    prove = proof.prove
    monkeypatch.setattr(
        proof, "prove", lambda *args: proofs.append(args) or prove(*args)
    )
    with torch.inference_mode():  # which allows no backward pass
        assert choose().way == ways.TRITON
    assert choose().plan is not None
    assert len(proofs) == 1
    assert not fresh


@pytest.mark.parametrize("module", [forward, backward])
def test_wrong_kernels_are_not_taken(module, fresh, monkeypatch):
    """One norm is left out, in the forward or the backward pass."""
    monkeypatch.setattr(module, "norm_in_place", lambda *args: None)
    choice = choose()
    assert (choice.way, choice.plan) == (ways.PLAIN, None)
    (line,) = fresh
    assert "not used for 16 channels" in line
    assert "differs from PyTorch's by" in line


def test_unavailable_kernels_are_not_taken(fresh, monkeypatch):
    def prove(*args):
        raise Unavailable("Triton cannot compile norm_rows: no such instruction")

    monkeypatch.setattr(proof, "prove", prove)
    assert choose().way == ways.PLAIN
    assert "no such instruction" in fresh[0]


def test_a_way_is_forced(monkeypatch):
    monkeypatch.setenv(ways.VARIABLE, ways.PLAIN)
    assert choose().plan is None
    monkeypatch.setenv(ways.VARIABLE, "fastest")
    with pytest.raises(InputError, match="tensor_cores, triton, plain"):
        choose()


@pytest.mark.parametrize(("mine", "way"), [(1.0, ways.TRITON), (3.0, ways.PLAIN)])
def test_a_way_slower_than_pytorch_is_not_taken(mine, way, monkeypatch):
    timed, kept = [], {}
    stage = stage_of(SPEC, TYPES, ways._plans(SPEC)[0], STRIDES, None)

    def times(*args):
        timed.append(args)
        return [mine, 2.0]

    monkeypatch.setattr(timing, "times", times)
    monkeypatch.setattr(ways, "_remembered", lambda device: kept)
    monkeypatch.setattr(
        ways, "_remember", lambda device, key, times: kept.update({key: times})
    )
    for _ in range(2):  # remembered
        assert ways._unless_slower(ways.TRITON, stage, USE).way == way
    assert len(timed) == 1
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert ways._unless_slower(ways.TRITON, stage, USE).way == ways.TRITON


def test_kernels_are_checked_under_torch_compile(fresh):
    """Inside its operator autograd records nothing: the check has its own thread."""
    torch._dynamo.reset()
    arch = dict(depths=[1] * 4, channels=[8] * 4)
    model = ConvNeXt(arch, layer_scale_init_value=1.0, out_indices=(0,))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    compiled(torch.randn(2, 3, 32, 32))[0].sum().backward()
    assert [choice.way for choice in ways._choices.values()] == [ways.TRITON]
    assert not fresh
