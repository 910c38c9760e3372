"""The kernels of deformable attention without a GPU: interpreted and compiled."""

import os

import pytest

from ...helpers.paths import ROOT
from ...helpers.running import shell

pytest.importorskip("triton")

import triton.language as tl
from triton import next_power_of_2

from convnext_dense.ops.deform_attn import kernels, launches

from ...helpers.kernel_binaries import compile_kernel

EVERY_KERNEL = os.environ.get("CONVNEXT_DENSE_EVERY_KERNEL") == "1"
# Kernel, type, compute capability, channels of a head, points. DINO, Deformable DETR
# and Mask2Former have 32 channels and 4 points.
CASES = [
    ("forward", "*fp32", 90, 32, 4),
    ("backward", "*fp32", 90, 32, 4),
    ("backward", "*fp16", 80, 32, 4),
]
if EVERY_KERNEL:
    CASES = [
        (name, element, architecture, channels, points)
        for name in ("forward", "backward")
        for element in ("*fp32", "*fp16", "*bf16")
        for architecture in (80, 86, 89, 90, 100)
        for channels, points in [
            *((channels, 4) for channels in (8, 24, 32, 64, 128, 256)),
            *((32, points) for points in (1, 3, 8, 16)),
        ]
    ]


def test_kernels_interpreted():
    done = shell(
        *("-m", "pytest", ROOT / "tests/ops/gpu/interpreted_deform_attn.py"),
        TRITON_INTERPRET="1",
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "element", "architecture", "channels", "points"), CASES
)
def test_kernels_spill_nothing(name, element, architecture, channels, points, tmp_path):
    types = dict.fromkeys(["value", "locations", "weights"], element)
    types |= dict(shapes="*i64", starts="*i64", Q="i32", S="i32")
    if name == "forward":
        types["out"] = element
    else:
        types |= dict.fromkeys(["grad", "of_locations", "of_weights"], element)
        types["of_value"] = "*fp32"
    tile = getattr(launches, f"{name}_tile")(channels, points)
    needs = compile_kernel(
        getattr(kernels, name),
        types,
        dict(
            **dict(M=8, D=channels, L=4, K=points, QB=tile.queries, CELL=tl.int32),
            **dict(DP=next_power_of_2(channels), KP=next_power_of_2(points)),
        ),
        warps=tile.warps,
        stages=3,
        architecture=architecture,
        tmp=tmp_path,
    )
    assert needs.stack == needs.spills == 0, needs
