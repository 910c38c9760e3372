"""The CUDA C++ kernels of the depthwise convolution, compiled for GPUs that are not
present, and their division of a map.

CONVNEXT_DENSE_EVERY_KERNEL=1 compiles every variant.
"""

import itertools
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from convnext_dense.models.fused.gpu import depthwise_cuda, nvrtc

EVERY = os.environ.get("CONVNEXT_DENSE_EVERY_KERNEL") == "1"
HALVES = [torch.bfloat16, torch.float16]
ADDS = ["none", "half", "float"]
# Bytes of shared memory that a block may use, and KB that a multiprocessor has.
ARCHITECTURES = {
    "sm_80": (163 * 1024, 164),
    "sm_89": (99 * 1024, 100),
    "sm_90": (227 * 1024, 228),
    "sm_100": (227 * 1024, 228),
    "sm_120": (99 * 1024, 100),
}
# One width for each division of a row in use.
WIDTHS = {depthwise_cuda.strips(width)[:2]: width for width in range(1, 400)}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "kernels"
    monkeypatch.setenv("CONVNEXT_DENSE_CACHE", str(folder))
    return folder


@pytest.fixture
def compiler():
    """Skip the test if NVRTC is missing."""
    try:
        nvrtc._nvrtc()
    except nvrtc.Unavailable as error:
        pytest.skip(str(error))


def resources(cubin, tmp_path):
    """Registers of a thread, and bytes that it keeps in memory instead."""
    triton = pytest.importorskip("triton")
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.is_file():
        pytest.skip("needs cuobjdump")
    file = tmp_path / "kernel.cubin"
    file.write_bytes(cubin)
    done = subprocess.run(
        [tool, "-res-usage", file], capture_output=True, text=True, check=True
    )
    usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", done.stdout + done.stderr))
    return int(usage["REG"]), int(usage["STACK"]) + int(usage["LOCAL"])


# Widths, types, additions, and whether the kernel is rotated.
VARIANTS = [
    *((152, torch.bfloat16, add, add != "none") for add in ADDS),
    (16, torch.float16, "float", True),
    (16, torch.float16, "float", False),
]
if EVERY:
    VARIANTS = list(itertools.product(WIDTHS.values(), HALVES, ADDS, [False, True]))


def check(binary, architecture, tmp_path):
    of_block, of_multiprocessor = ARCHITECTURES[architecture]
    registers, memory = resources(binary.cubin, tmp_path)
    assert memory == 0  # everything is in registers
    assert binary.shared <= of_block
    # ``blocks`` blocks fit on a multiprocessor: it has 65536 registers, and each block
    # takes 1 KB of shared memory for the system.
    assert binary.blocks * binary.threads * registers <= 65536
    assert binary.blocks * (binary.shared + 1024) <= of_multiprocessor * 1024


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_convolution(tmp_path, variant, architecture):
    width, half, add, flip = variant
    # Either type of weight: it is only read before the loop that needs registers.
    weight_dtype = torch.float32 if half == torch.bfloat16 else half
    binary = depthwise_cuda.convolution(
        *(width, half, weight_dtype),
        **dict(bias=not flip, flip=flip, add=add, architecture=architecture),
    )
    assert binary.blocks == (1 if add == "float" and not flip else 2)
    check(binary, architecture, tmp_path)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("half", HALVES if EVERY else HALVES[:1], ids=str)
@pytest.mark.parametrize("width", list(WIDTHS.values()) if EVERY else [152, 16])
def test_weight_gradient(tmp_path, width, half, architecture):
    binary = depthwise_cuda.weight_gradient(width, half, architecture)
    check(binary, architecture, tmp_path)


@pytest.mark.usefixtures("compiler")
def test_same_variant_is_compiled_once():
    flags = dict(bias=True, flip=False, add="none", architecture="sm_90")
    arguments = torch.bfloat16, torch.float32
    wide = depthwise_cuda.convolution(128, *arguments, **flags)
    assert depthwise_cuda.convolution(100, *arguments, **flags) is wide


@pytest.mark.usefixtures("compiler")
def test_unknown_architecture():
    with pytest.raises(nvrtc.Unavailable, match="sm_33"):
        depthwise_cuda.weight_gradient(16, torch.bfloat16, "sm_33")


def test_wrong_types():
    flags = dict(bias=False, flip=False, add="none", architecture="sm_90")
    with pytest.raises(ValueError, match=r"weight is torch\.float16"):
        depthwise_cuda.convolution(16, torch.bfloat16, torch.float16, **flags)
    with pytest.raises(ValueError, match=r"maps are torch\.float32"):
        depthwise_cuda.convolution(16, torch.float32, torch.float32, **flags)
    with pytest.raises(ValueError, match=r"maps are torch\.float32"):
        depthwise_cuda.weight_gradient(16, torch.float32, "sm_90")


def test_supports():
    assert depthwise_cuda.supports(96, torch.bfloat16, (8, 0))
    assert depthwise_cuda.supports(40, torch.float16, (12, 0))
    assert not depthwise_cuda.supports(96, torch.bfloat16, (7, 5))
    assert not depthwise_cuda.supports(96, torch.float32, (9, 0))
    assert not depthwise_cuda.supports(100, torch.bfloat16, (9, 0))
    assert depthwise_cuda.architecture((12, 0)) == "sm_120"


@pytest.mark.parametrize("multiprocessors", [1, 58, 132])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 8), (2, 7, 70, 24), (16, 128, 128, 96), (3, 50, 301, 1024)]
)
def test_layout(shape, multiprocessors):
    """Every pixel and channel belongs to one block."""
    n, h, w, c = shape
    layout = depthwise_cuda.layout(*shape, multiprocessors=multiprocessors, blocks=2)
    count, full, across = depthwise_cuda.strips(w)
    *size, rows, chunks, of_row, units, channel_blocks = layout.integers
    assert size == [h, w, c]
    assert rows % 2 == 0
    assert (chunks - 1) * rows < h <= chunks * rows
    outputs = 8 * (count if full else count - 1)
    assert of_row == across
    assert (across - 1) * outputs < w <= across * outputs
    assert units == n * chunks * across
    segments = 16 // count
    assert (layout.tiles - 1) * segments < units <= layout.tiles * segments
    assert (channel_blocks - 1) * 16 < c <= channel_blocks * 16
    assert layout.grid == layout.tiles * channel_blocks
