"""Which kernels compute a stage's products and convolutions, and in which tiles.

Microseconds of a block on an H200 (bf16, 16 images of 512 x 512), by the plan that is
preferred; "single" is one product at a time:

    C           96          192          384          768
    forward     140 fused   108 fused    93 single    72 single
    backward    462 fused   384 single   264 single   197 single
"""

from typing import NamedTuple

import torch

from .kernels import gelu

FUSED = "fused"  # both products and GELU in one kernel, for narrow maps
TRITON = "triton"  # the products before GELU in Triton, those after it by cuBLAS
CUBLAS = "cublas"  # all products by cuBLAS, what is between them in Triton

HALVES = torch.bfloat16, torch.float16
KIB = 1024
# Devices are told apart by the shared memory that a kernel may have: an A100 gives it
# 163 KiB, an H100 and a B200 227, cards for graphics 99 or less.
A100, H100 = 160 * KIB, 200 * KIB


class Plan(NamedTuple):
    """How a stage's products are computed.

    The tile of a fused kernel is (rows, columns, warps, stages). That of a Triton
    product is (rows, columns, depth, warps, stages).

    Attributes:
        forward, backward: FUSED, TRITON or CUBLAS.
        depthwise: "cuda" (tensor cores) or "triton".
        gelu: of ``kernels.gelu``.
        mlp, rows, weights: tiles of the fused kernels.
        up, hidden: of the Triton products.
        forward_piece, backward_piece: hidden numbers (rows times 4C) that are in memory
            at a time. Backwards there are two of them, at the step's peak.
    """

    forward: str
    backward: str
    depthwise: str
    gelu: int
    mlp: tuple = (64, 32, 4, 3)
    rows: tuple = (64, 64, 4, 2)
    weights: tuple = (64, 64, 4, 3)
    up: tuple = (128, 128, 64, 8, 3)
    hidden: tuple = (128, 128, 64, 8, 3)
    forward_piece: int = 2**26
    backward_piece: int = 3 * 2**23


def plans_for(
    channels: int,
    work: torch.dtype,
    grn: bool,
    depthwise: str,
    shared: int = 227 * KIB,
) -> list[Plan]:
    """The plans to try, the best first. The last works on every device.

    Tiles fit in shared memory and, with few exceptions, in the registers:
    ``tests/test_gpu_stage_binaries.py`` compiles the kernels for four devices.

    Args:
        channels: C.
        work: the type of the products.
        grn: ConvNeXt V2.
        depthwise: the way of the depthwise convolution, "cuda" or "triton".
        shared: bytes of shared memory that a kernel may have on the device.
    """
    exactness = {torch.float32: gelu.ERF, torch.float16: gelu.POLYNOMIAL}
    last = Plan(CUBLAS, CUBLAS, depthwise, exactness.get(work, gelu.TANH))
    if work not in HALVES or grn:
        return [last]
    plans = []
    tiled = _tiled(channels, last, shared)
    if two_powers(channels) and channels <= 128:
        weights = _weights_tile(channels, shared)
        plans.append(last._replace(forward=FUSED, backward=FUSED, weights=weights))
    elif two_powers(channels) and channels <= 256 and tiled is not None:
        mlp = _mlp_tile(channels, shared)
        plans.append(tiled._replace(forward=FUSED, mlp=mlp))
    if tiled is not None:
        plans.append(tiled)
    return [*plans, last]


def _weights_tile(channels: int, shared: int) -> tuple:
    """The tile of ``mlp.mlp_weights``, for 16 to 128 channels."""
    if channels > 96:
        return (64, 64, 8, 2)
    if shared >= H100:
        return (64, 64, 4, 3)
    # Before an H100 a product takes more registers.
    return (16 if channels > 80 and shared < A100 else 32, 64, 4, 2)


def _mlp_tile(channels: int, shared: int) -> tuple:
    """The tile of ``mlp.mlp_forward``, for 129 to 256 channels."""
    if shared < A100:
        return (64, 32, 4, 2) if channels <= 192 else (64, 32, 8, 2)
    if channels <= 192:
        return (128, 64, 8, 3)
    return (128, 64, 8, 2) if shared >= H100 else (64, 64, 8, 2)


def _tiled(channels: int, last: Plan, shared: int) -> Plan | None:
    """The products one by one in Triton, if their tiles divide the channels."""
    if channels % 32:
        return None
    depth = 64 if channels % 64 == 0 else 32
    stages = 2 if shared < A100 else 3
    if channels <= 256:
        hidden = (128, 64, depth, 8, 2)
    elif shared < H100:  # more registers than a thread has for 128 columns
        hidden = (128, 64, depth, 8, stages)
    else:
        hidden = (128, 128, depth, 8, stages)
    return last._replace(
        forward=TRITON,
        backward=TRITON,
        up=(128, 128, depth, 8, stages),
        hidden=hidden,
    )


def two_powers(channels: int) -> tuple[int, int] | None:
    """``channels`` as a sum of two powers of two from 16 on, or of one and 0."""
    first = 1 << (channels.bit_length() - 1)
    second = channels - first
    if first < 16 or (second and (second < 16 or second & (second - 1))):
        return None
    return first, second
