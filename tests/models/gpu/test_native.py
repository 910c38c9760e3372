"""Programs launched with a driver that does nothing: which calls are built, and what
happens if the driver or a kernel is missing."""

import contextlib
import ctypes
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from convnext_dense.models.fused.gpu import (
    compiled,
    native,
    proof,
    reference,
    stage,
    ways,
)
from convnext_dense.models.fused.gpu.autograd import apply_stage
from convnext_dense.models.fused.gpu.depthwise_cuda import Binary
from convnext_dense.models.fused.gpu.description import DOWNSAMPLE, StageSpec, Types
from convnext_dense.models.fused.gpu.device import Device
from convnext_dense.models.fused.gpu.nvrtc import NoConvolution
from convnext_dense.models.fused.gpu.plain_run import PlainRun
from convnext_dense.models.fused.gpu.plan import plans_for
from convnext_dense.models.fused.gpu.stage_arguments import StageArguments

SPEC = StageSpec(DOWNSAMPLE, 16, 32, 2, True, False, True, 1e-6)
TYPES = Types(torch.bfloat16, torch.float32, torch.float32)
STRIDES = (64, 4, 2, 1)
GPU = Device("a GPU", (9, 0), 132, 227 * 1024)


@pytest.fixture(autouse=True)
def driver(monkeypatch):
    """A GPU whose driver records its calls; the value is their list."""
    calls = []

    def call(*arguments):
        calls.append(arguments)
        return 0

    fake = SimpleNamespace(
        launch=call,
        gemm=call,
        stream=lambda device: 0,
        blas=lambda device: 0,
        load=lambda binary: ctypes.c_void_p(1),
        parameters=lambda function: None,
    )

    def compile_triton(launch):
        count = len(launch.arguments)
        names = [parameter.name for parameter in launch.kernel.params]
        kinds = {n: "*" if i < count else "constexpr" for i, n in enumerate(names)}
        return SimpleNamespace(
            src=SimpleNamespace(signature=kinds),
            metadata=SimpleNamespace(shared=0),
            function=1,
            _init_handles=lambda: None,
        )

    binary = Binary(b"", "convolution", 256, 0, 2)
    monkeypatch.setattr(native, "loaded", lambda: fake)
    monkeypatch.setattr(compiled, "_compile_triton", compile_triton)
    monkeypatch.setattr(compiled, "_compile_convolution", lambda *args: binary)
    monkeypatch.setattr(compiled, "_functions", {})
    monkeypatch.setattr(stage, "device_of", lambda index: GPU)
    monkeypatch.setattr(ways, "device_of", lambda index: GPU)
    monkeypatch.setattr(torch.cuda, "device", lambda i: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *args: (9, 0))
    return calls


def stage_on_gpu():
    plan = plans_for(SPEC.channels, TYPES.work, False, "cuda")[0]
    return stage.Stage(SPEC, TYPES, plan, STRIDES, 0)


def test_every_launch_of_a_program_is_built(driver):
    built = stage_on_gpu()
    parameters = reference.random_parameters(
        SPEC, torch.float32, torch.device("cpu"), STRIDES
    )
    x = torch.rand(2, 16, 20, 20).to(memory_format=torch.channels_last)
    x.requires_grad_()
    shape = built.shape_of(x, False, torch.float32)
    programs = proof.programs(built, shape, True)
    compiled.compile_all(programs, 0)
    arguments = StageArguments.of(parameters)
    outs = apply_stage(built, shape, x, arguments)
    assert len(driver) == len(programs[0].launches)
    grads = [torch.zeros_like(out) for out in outs]
    torch.autograd.grad(outs, [x, *parameters], grads)
    assert len(driver) == len(programs[0].launches) + len(programs[1].launches)


def test_without_a_driver_triton_launches(monkeypatch):
    def no_driver():
        raise native.NoDriver("CUDA's driver cannot be loaded")

    monkeypatch.setattr(native, "loaded", no_driver)
    built = stage_on_gpu()
    x = torch.rand(1, 16, 8, 8)
    program = built.program(built.shape_of(x, False, torch.float32), True)
    assert isinstance(built.runner(program, x.device), PlainRun)


def test_without_the_convolution_triton_is_taken(monkeypatch):
    tried, logged = [], []

    def prove(built, *args):
        tried.append(built.plan.depthwise)
        if built.plan.depthwise == "cuda":
            raise NoConvolution("NVRTC cannot be loaded")

    monkeypatch.setattr(proof, "prove", prove)
    monkeypatch.setattr(ways, "_log", logged.append)
    monkeypatch.setattr(ways, "_unless_slower", lambda way, *args: way)
    use = ways.Use(100, 10, False, torch.float32, True)
    assert ways._choose(SPEC, TYPES, STRIDES, 0, use) == ways.TRITON
    assert tried == ["cuda", "triton"]  # no second plan with that convolution
    assert "NVRTC cannot be loaded" in logged[0]
