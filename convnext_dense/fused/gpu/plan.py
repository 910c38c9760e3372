"""Which kernels compute a stage's products and convolutions, and in which tiles.

Times are of an H200 (bf16, 16 x 512 x 512, microseconds a block). Forward: C = 96 fused
140; C = 192 fused 108; C = 384 one by one 93, C = 768 likewise 72. Backward: C = 96
fused 462; C = 192 one by one 384, C = 384 264, C = 768 197.
"""

from typing import NamedTuple

import torch

from .kernels import gelu

FUSED = "fused"  # both products and GELU in one kernel, for narrow maps
TRITON = "triton"  # the products before GELU in Triton, those after it by cuBLAS
CUBLAS = "cublas"  # all products by cuBLAS, what is between them in Triton

HALVES = torch.bfloat16, torch.float16


class Plan(NamedTuple):
    """Tiles are (rows, columns, warps, stages), with the depth before warps where a
    product has one.

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
    shared: int = 227 * 1024,
) -> list[Plan]:
    """What to take, the best first; the last needs nothing special.

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
    small = shared < 160 * 1024
    tiled = _tiled(channels, last, small)
    if two_powers(channels) and channels <= 128:
        weights = last.weights if channels <= 96 else (64, 64, 8, 2)
        plans.append(last._replace(forward=FUSED, backward=FUSED, weights=weights))
    elif two_powers(channels) and channels <= 256 and tiled is not None:
        mlp = (64, 32, 4, 2) if small else (128, 64, 8, 3 if channels <= 192 else 2)
        plans.append(tiled._replace(forward=FUSED, mlp=mlp))
    if tiled is not None:
        plans.append(tiled)
    return [*plans, last]


def _tiled(channels: int, last: Plan, small: bool) -> Plan | None:
    """The products one by one in Triton, if their tiles divide the channels."""
    if channels % 32:
        return None
    depth = 64 if channels % 64 == 0 else 32
    stages = 2 if small else 3
    hidden = (128, 128, depth, 8, stages)
    if channels <= 256:
        hidden = (128, 64, depth, 8, 2)
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
