"""Chooses the kernels and tile sizes for a stage's products and convolutions.

Microseconds per block on an H200 (bf16, 16 images of 512 x 512) with the preferred
plan; "single" computes one product at a time:

    C           96          192          384          768
    forward     140 fused   108 fused    93 single    72 single
    backward    462 fused   384 single   264 single   197 single
"""

from typing import NamedTuple

import torch

from .kernels import gelu

FUSED = "fused"  # both products and GELU in one kernel, for few channels
TRITON = "triton"  # products up to GELU in Triton, those after it by cuBLAS
CUBLAS = "cublas"  # all products by cuBLAS, the rest in Triton
PRODUCTS = FUSED, TRITON, CUBLAS  # tests run every one of them

HALVES = torch.bfloat16, torch.float16
KIB = 1024
# Devices differ in the shared memory that a kernel may use: 163 KiB on an A100, 227 on
# an H100 or B200, 99 or less on graphics cards.
A100, H100 = 160 * KIB, 200 * KIB


class Plan(NamedTuple):
    """The kernels and tiles that compute a stage's blocks.

    The tile of a fused kernel is (rows, columns, warps, stages), that of a Triton
    product (rows, columns, depth, warps, stages).

    Attributes:
        forward, backward: one of PRODUCTS.
        depthwise: "cuda" (tensor cores) or "triton".
        gelu: ERF, POLYNOMIAL or TANH of ``kernels.gelu``.
        mlp, rows, weights: the tiles of ``mlp.mlp_forward``, ``mlp_backward_rows`` and
            ``mlp_weights``.
        up, hidden: the tiles of ``products.product`` and ``hidden_backward_product``.
        forward_piece, backward_piece: how many hidden numbers (rows times 4C) are in
            memory at once. The backward pass holds two such pieces, at the peak of a
            training step.
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
    """The plans to try, the best first. The last one works on every device.

    The tiles fit in shared memory and, with few exceptions, in the registers:
    ``tests/models/gpu/test_stage_binaries.py`` compiles the kernels for four devices.

    Args:
        channels: C.
        work: the type of the products.
        grn: whether the blocks have GRN (ConvNeXt V2).
        depthwise: the depthwise convolution's kernels, "cuda" or "triton".
        shared: bytes of shared memory that a kernel may use on the device.
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
    # On GPUs older than an H100 a product takes more registers.
    return (16 if channels > 80 and shared < A100 else 32, 64, 4, 2)


def _mlp_tile(channels: int, shared: int) -> tuple:
    """The tile of ``mlp.mlp_forward``, for 129 to 256 channels."""
    if shared < A100:
        return (64, 32, 4, 2) if channels <= 192 else (64, 32, 8, 2)
    if channels <= 192:
        return (128, 64, 8, 3)
    return (128, 64, 8, 2) if shared >= H100 else (64, 64, 8, 2)


def _tiled(channels: int, last: Plan, shared: int) -> Plan | None:
    """The plan with single products in Triton; None if no tile divides the channels."""
    if channels % 32:
        return None
    depth = 64 if channels % 64 == 0 else 32
    stages = 2 if shared < A100 else 3
    if channels <= 256:
        hidden = (128, 64, depth, 8, 2)
    elif shared < H100:  # 128 columns would take more registers than a thread has
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
    """``channels`` as the sum of two powers of two, each at least 16, or of one and 0.

    None if there is no such sum.
    """
    first = 1 << (channels.bit_length() - 1)
    second = channels - first
    if first < 16 or (second and (second < 16 or second & (second - 1))):
        return None
    return first, second
