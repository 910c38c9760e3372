"""The CUDA C++ kernels of the depthwise convolution, run on the CPU by an emulator."""

import ctypes
import os
import shutil
import subprocess

import pytest
import torch
from torch.nn import functional as F

from convnext_dense.models.fused.gpu import depthwise_cuda, nvrtc

from ...helpers.paths import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")

EVERY = os.environ.get("CONVNEXT_DENSE_EVERY_KERNEL") == "1"
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The relative error of rounding a value to 16 bits.
ROUNDING = {torch.bfloat16: 2**-8, torch.float16: 2**-11}

# Maps (N, H, W, C); the comments give the strips and segments of a row.
CONVOLUTIONS = [
    # shape, half, weight, bias, flip, add
    ((1, 9, 16, 16), "bf16", "fp32", True, False, "none"),  # 2 strips span a row
    ((2, 10, 23, 24), "fp16", "half", True, True, "half"),  # 4; channels to spare
    ((3, 6, 61, 8), "fp16", "fp32", False, True, "float"),  # 8
    ((1, 3, 70, 16), "bf16", "fp32", False, True, "float"),  # 4 of 3 segments
    ((1, 1, 1, 8), "bf16", "half", True, False, "float"),
    ((1, 3, 300, 8), "bf16", "fp32", True, False, "half"),  # 16 of 3 segments
]
GRADIENTS = [
    ((1, 9, 16, 16), "bf16"),
    ((2, 10, 23, 24), "fp16"),
    ((1, 5, 70, 8), "bf16"),
    ((1, 1, 1, 8), "fp16"),
]
if EVERY:
    CONVOLUTIONS += [
        ((1, 7, 128, 32), "bf16", "fp32", True, False, "none"),  # 16
        ((1, 3, 130, 40), "bf16", "fp32", True, True, "half"),  # 8 of 3 segments
        ((3, 5, 3, 8), "fp16", "half", False, False, "none"),
        ((5, 25, 38, 16), "bf16", "fp32", False, True, "half"),
        ((5, 25, 38, 16), "bf16", "half", True, False, "float"),
        ((1, 6, 152, 24), "fp16", "fp32", True, True, "float"),
    ]
    GRADIENTS += [
        ((1, 7, 128, 32), "bf16"),
        ((1, 4, 130, 40), "fp16"),
        ((3, 5, 3, 8), "bf16"),
        ((5, 25, 38, 16), "bf16"),
        ((1, 3, 300, 8), "bf16"),
        ((3, 6, 61, 56), "fp16"),
    ]


@pytest.fixture
def built(monkeypatch, tmp_path):
    """A function that returns a kernel's Binary, and its emulation as a library."""

    def build(function, *arguments, **flags):
        macros = {}

        def keep(source, defines, architecture):
            macros.update(defines)
            return b""

        def forget():
            depthwise_cuda._convolution.cache_clear()
            depthwise_cuda._weight_gradient.cache_clear()

        forget()
        with monkeypatch.context() as patched:
            patched.setattr(nvrtc, "compile", keep)
            binary = function(*arguments, architecture="sm_89", **flags)
        forget()  # it has no cubin
        library = tmp_path / "kernel.so"
        subprocess.run(
            [
                *("g++", "-std=c++17", "-O1", "-w", "-shared", "-fPIC"),
                *(f"-D{name}={value}" for name, value in macros.items()),
                f"-I{ROOT / 'convnext_dense/models/fused/gpu/cuda'}",
                ROOT / f"tests/helpers/cuda_emulator/{binary.name}.cpp",
                *("-o", library),
            ],
            check=True,
        )
        kernel = ctypes.CDLL(str(library))
        assert kernel.shared_bytes() == binary.shared
        return binary, kernel

    return build


def run(kernel, layout, *tensors):
    pointers = [ctypes.c_void_p(t.data_ptr() if t is not None else 0) for t in tensors]
    kernel.run(layout.grid, *pointers, (ctypes.c_int * 8)(*layout.integers))


def guarded(values):
    """A copy of a map between two images of NaN, which no kernel may read or write."""
    n = values.shape[0]
    around = values.new_full((n + 2, *values.shape[1:]), torch.nan)
    around[1:-1] = values
    return around, around[1:-1]


def intact(around):
    return around[0].isnan().all() and around[-1].isnan().all()


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution(built, case):
    shape, half, weight_type, has_bias, flip, add = case
    half, (w, c) = HALVES[half], shape[2:]
    weight_dtype = torch.float32 if weight_type == "fp32" else half
    torch.manual_seed(0)
    x = torch.randn(shape).to(half)
    weight = (torch.randn(c, 1, 7, 7) / 7).to(half)
    bias = torch.randn(c).to(weight_dtype) if has_bias else None
    g = torch.randn(shape).to(torch.float32 if add == "float" else half)

    turned = weight.double().flip(2, 3) if flip else weight.double()
    true = F.conv2d(
        x.double().permute(0, 3, 1, 2),
        turned,
        bias.double() if has_bias else None,
        padding=3,
        groups=c,
    ).permute(0, 2, 3, 1)
    largest = true.abs().max()
    if add != "none":
        true = true + g.double()

    binary, kernel = built(
        depthwise_cuda.convolution,
        *(w, half, weight_dtype),
        **dict(bias=has_bias, flip=flip, add=add),
    )
    layout = depthwise_cuda.layout(*shape, multiprocessors=2, blocks=binary.blocks)
    surroundings, x = guarded(x)
    y_around, y = guarded(torch.full(shape, 777.0, dtype=half))
    wide_around, wide = guarded(g if add == "float" else torch.zeros(shape))
    if add == "half":
        y.copy_(g)
    sums = dict(
        none=(None, None, y),
        half=(y, None, y),  # in place
        float=(wide, wide, y),
    )[add]
    run(kernel, layout, x, weight.to(weight_dtype), bias, *sums)

    assert intact(surroundings)
    assert intact(y_around)
    assert intact(wide_around)
    # The convolution is rounded once, a 16-bit sum once more.
    error = 1.01 * ROUNDING[half] * largest
    if add == "float":
        assert (wide.double() - true).abs().max() <= error
        assert torch.equal(y, wide.to(half))
    error += 1.01 * ROUNDING[half] * true.abs().max()
    assert (y.double() - true).abs().max() <= error


@pytest.mark.parametrize("case", GRADIENTS, ids=str)
def test_weight_gradient(built, case):
    shape, half = case
    half, (h, w, c) = HALVES[half], shape[1:]
    torch.manual_seed(0)
    x, gradient = torch.randn(2, *shape).to(half)
    padded = F.pad(x.double(), (0, 0, 3, 3, 3, 3))
    true = torch.stack(
        [
            (padded[:, i : i + h, j : j + w] * gradient.double()).sum((0, 1, 2))
            for i in range(7)
            for j in range(7)
        ],
        dim=1,
    )

    binary, kernel = built(depthwise_cuda.weight_gradient, w, half)
    layout = depthwise_cuda.layout(*shape, multiprocessors=2, blocks=binary.blocks)
    (_, x), (_, gradient) = guarded(x), guarded(gradient)
    around, partial = guarded(torch.full((layout.tiles, c, 49), 777.0))
    run(kernel, layout, x, gradient, partial)
    assert intact(around)
    assert (partial.double().sum(0) - true).abs().max() <= 1e-6 * true.abs().max()
