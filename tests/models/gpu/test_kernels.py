"""The depthwise Triton kernels without a GPU: interpreted and compiled."""

import os

import pytest

from ...helpers.paths import ROOT
from ...helpers.running import shell

pytest.importorskip("triton")

from convnext_dense.models.fused.gpu.kernels import depthwise

from ...helpers.kernel_binaries import compile_kernel

EVERY_KERNEL = os.environ.get("CONVNEXT_DENSE_EVERY_KERNEL") == "1"
# Compute capabilities of an A100, an L4, an H100 and a B200.
ARCHITECTURES = [80, 89, 90, 100] if EVERY_KERNEL else [80, 90]
FULL, HALF = "*fp32", "*bf16"


def test_kernels_interpreted():
    done = shell(
        *("-m", "pytest", ROOT / "tests/models/gpu/interpreted_kernels.py"),
        TRITON_INTERPRET="1",
    )
    assert done.returncode == 0, done.stdout


# Type of the maps, channels, FLIP, BIAS, ADD: the flags of the forward pass and of the
# input's gradient, and channels for each of the tiles.
CONVOLUTIONS = [
    (FULL, 96, False, True, 0),
    (FULL, 384, True, False, 2),
    (HALF, 384, True, False, 2),
]
if EVERY_KERNEL:
    CONVOLUTIONS = [
        (element, channels, *flags)
        for element in (FULL, HALF, "*fp16")
        for channels in (8, 50, 97, 96, 384)
        for flags in [(False, True, 0), (True, False, 1), (True, False, 2)]
    ]


def constants_of_tile(channels):
    rows, wide, block, warps = depthwise.convolution_tile(channels)
    return dict(C=channels, ROWS=rows, WIDE=wide, CB=block), warps


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("element", "channels", "flip", "bias", "add"), CONVOLUTIONS)
def test_convolution_spills_nothing(
    element, channels, flip, bias, add, architecture, tmp_path
):
    constants, warps = constants_of_tile(channels)
    needs = compile_kernel(
        depthwise.convolution,
        types=dict(
            **dict(x=element, weight=FULL, bias=FULL, g=FULL if add == 2 else element),
            **dict(wide=FULL, y=element, H="i32", W="i32"),
        ),
        constants=dict(FLIP=flip, BIAS=bias, ADD=add, **constants),
        warps=warps,
        stages=3,
        architecture=architecture,
        tmp=tmp_path,
    )
    assert needs.stack == needs.spills == 0, needs


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("channels", [50, 97, 96, 384] if EVERY_KERNEL else [384])
@pytest.mark.parametrize("element", [FULL, HALF])
def test_weight_gradient_spills_nothing(element, channels, architecture, tmp_path):
    constants, warps = constants_of_tile(channels)
    needs = compile_kernel(
        depthwise.weight_gradient,
        types=dict(
            **dict(x=element, grad=element, partial=FULL),
            **dict(H="i32", W="i32", UNITS="i32", SPLITS="i32"),
        ),
        constants=constants,
        warps=warps,
        stages=3,
        architecture=architecture,
        tmp=tmp_path,
    )
    assert needs.stack == needs.spills == 0, needs
