"""Compiles the CUDA C++ kernels of the depthwise 7x7 convolution, and divides maps.

Nothing in this module uses a GPU or its driver; ``native`` loads the cubins. A launch
has ``grid`` blocks of ``threads`` threads and these arguments, pointers first:

    convolution       x, weight, bias, g, wide, y, *integers
    weight_gradient   x, gradient, partial, *integers

``x``, ``gradient`` and ``y`` are maps (N, H, W, C), contiguous and of 16 bits;
``weight`` is (C, 1, 7, 7) and ``bias`` (C,). ``partial`` is (tiles, C, 49) in fp32; its
sum over the tiles is the gradient of the weight, and kernels write all of it. ``g`` and
``wide`` are explained at ``convolution``. Pointers that a variant of the kernel does
not use may be null; all others are aligned to 16 bytes.
"""

import functools
import math
from importlib.resources import files
from typing import NamedTuple

import torch

from . import nvrtc

_THREADS = 256
_CHANNELS = 16  # of a block
_OCTETS = 2  # octets (8 channels) of a block
_PADDING = 16  # words between octets in shared memory

# KB of shared memory of a multiprocessor; a block may use 1 KB less.
_SHARED = {"sm_80": 164, "sm_87": 164, "sm_90": 228}
_SHARED |= {"sm_100": 228, "sm_103": 228, "sm_110": 228}
_LEAST_SHARED = 100  # of all other GPUs from sm_80 on

_ADD = {"none": 0, "half": 1, "float": 2}


class Binary(NamedTuple):
    """A compiled kernel and how to launch it."""

    cubin: bytes
    name: str  # of the kernel in the cubin
    threads: int  # of a block
    shared: int  # bytes of dynamic shared memory
    blocks: int  # that should run on a multiprocessor at the same time


class Strips(NamedTuple):
    """How the rows of a map are divided; common.cuh explains strips and segments."""

    number: int  # strips of a segment
    full: bool  # whether one segment spans a row
    across: int  # segments of a row


class MapDivision(NamedTuple):
    """How a map is divided among the blocks of a launch."""

    grid: int  # blocks to launch
    tiles: int  # blocks with the same channels: partial sums of the weight's gradient
    integers: tuple[int, ...]  # the last arguments of the kernels, 32-bit


def supports(channels: int, half: torch.dtype, capability: tuple[int, int]) -> bool:
    """Whether the kernels support maps of a type on GPUs of a compute capability."""
    halves = torch.float16, torch.bfloat16
    return half in halves and channels % 8 == 0 and tuple(capability) >= (8, 0)


def architecture(capability: tuple[int, int]) -> str:
    """The compiler's name of a compute capability, such as "sm_90"."""
    major, minor = capability
    return f"sm_{major}{minor}"


@functools.cache
def strips(width: int) -> Strips:
    """The division of rows of ``width`` columns that computes the fewest columns."""

    def divided(count):
        full = width <= 8 * count
        return Strips(count, full, 1 if full else -(-width // (8 * (count - 1))))

    # Of equal ones a full division, which loads no column twice; then the first.
    return min(
        map(divided, (16, 8, 4, 2)), key=lambda s: (s.across * 8 * s.number, not s.full)
    )


@functools.cache
def layout(
    batch: int,
    height: int,
    width: int,
    channels: int,
    *,
    multiprocessors: int,
    blocks: int,
) -> MapDivision:
    """Divide a map so that all multiprocessors stay busy.

    Args:
        batch, height, width, channels: of the map, which has at least one pixel.
        multiprocessors: of the GPU, such as 132 for an H100.
        blocks: ``Binary.blocks``, how many run on a multiprocessor at the same time.
    """
    count, _, across = strips(width)
    channel_blocks = -(-channels // _CHANNELS)

    def divided(rows):
        chunks = -(-height // rows)
        units = batch * chunks * across
        return chunks, units, -(-units // (16 // count))

    def cost(rows):
        # The start of a block (border rows, taps) costs about as much as 10 rows. With
        # many waves the last one is half full on average.
        waves = divided(rows)[2] * channel_blocks / (multiprocessors * blocks)
        waves = math.ceil(waves) if waves < 6 else waves + 0.5
        return waves * (rows + 10)

    rows = min(range(2, height + 2, 2), key=cost)  # even: steps take two
    chunks, units, tiles = divided(rows)
    return MapDivision(
        grid=tiles * channel_blocks,
        tiles=tiles,
        integers=(
            *(height, width, channels),
            *(rows, chunks, across, units, channel_blocks),
        ),
    )


def convolution(
    width: int,
    half: torch.dtype,
    weight_dtype: torch.dtype,
    *,
    bias: bool,
    flip: bool,
    add: str,
    architecture: str,
) -> Binary:
    """Compile the convolution for rows of ``width`` columns.

    Args:
        half: the type of ``x`` and ``y``, bfloat16 or float16.
        weight_dtype: of weight and bias, float32 or ``half``.
        bias: whether a bias is added.
        flip: whether to rotate the 7x7 kernel by 180 degrees. The result is then the
            gradient of the input if ``x`` is that of the output.
        add: "none", "half" or "float". With "half" a map ``g`` of the type ``half`` is
            added, which may be ``y`` itself. With "float" a map ``g`` in fp32 is added;
            the sum goes to ``wide`` in fp32 and, rounded, to ``y``; ``wide`` may be
            ``g`` itself. The convolution is rounded to ``half`` before the addition.
        architecture: such as "sm_90".

    Raises:
        nvrtc.Unavailable: it cannot be compiled.
    """
    if weight_dtype not in (torch.float32, half):
        raise ValueError(f"weight is {weight_dtype}, not torch.float32 or {half}")
    count, full, _ = strips(width)
    wide_weight = weight_dtype == torch.float32
    return _convolution(
        *(count, full, _bf16(half), wide_weight, bias, flip, add, architecture)
    )


def weight_gradient(width: int, half: torch.dtype, architecture: str) -> Binary:
    """Compile the gradient of the weight for rows of ``width`` columns.

    Args:
        half: the type of ``x`` and of the output's gradient, bfloat16 or float16.
        architecture: such as "sm_90".

    Raises:
        nvrtc.Unavailable: it cannot be compiled.
    """
    count, full, _ = strips(width)
    return _weight_gradient(count, full, _bf16(half), architecture)


def _bf16(half: torch.dtype) -> bool:
    """Whether a 16-bit type is bfloat16.

    Raises:
        ValueError: it is neither bfloat16 nor float16.
    """
    if half not in (torch.float16, torch.bfloat16):
        raise ValueError(f"maps are {half}, not torch.float16 or torch.bfloat16")
    return half == torch.bfloat16


@functools.cache
def _convolution(count, full, bf16, wide_weight, bias, flip, add, architecture):
    """A variant of the convolution, compiled once per process."""
    # The same constants as in convolution.cu.
    row = _OCTETS * (8 * (4 * count + 4) * (16 // count) + _PADDING)
    pixels = 128 * (_CHANNELS // 2 + 1)
    defines = dict(
        WEIGHT="float" if wide_weight else "u16",
        BIAS=int(bias),
        FLIP=int(flip),
        ADD=_ADD[add],
        PREFETCH=2 if add == "none" else 1,  # registers hold g or one more row
    )
    words = 4 * row + 4 * pixels
    # With two blocks a thread has 128 registers, too few for bias and fp32 sums.
    blocks = 1 if bias and add == "float" else 2
    return _binary(
        *("convolution", words, blocks, count, full, bf16, architecture, defines)
    )


@functools.cache
def _weight_gradient(count, full, bf16, architecture):
    """A variant of the weight gradient, compiled once per process."""
    # The same constants as in weight_gradient.cu.
    of_x = (4 * count + 4) * (16 // count)
    copy = (of_x + 15) // 32 * 32 + 16
    x_row = _OCTETS * (8 * (copy + of_x) + _PADDING) - _PADDING
    ring = _OCTETS * (8 * 10 * 68 + _PADDING) - _PADDING
    words = 4 * x_row + ring
    return _binary("weight_gradient", words, 2, count, full, bf16, architecture, {})


def _binary(name, words, most, count, full, bf16, architecture, defines) -> Binary:
    """Compile a kernel with ``words`` of shared memory and at most ``most`` blocks on a
    multiprocessor."""
    shared = 4 * words
    kilobytes = _SHARED.get(architecture, _LEAST_SHARED)
    blocks = max(1, min(most, kilobytes * 1024 // (shared + 1024)))
    defines = dict(
        STRIPS=count, FULL=int(full), BF16=int(bf16), BLOCKS=blocks, **defines
    )
    cubin = nvrtc.compile(_source(name), defines, architecture)
    return Binary(cubin, name, _THREADS, shared, blocks)


@functools.cache
def _source(name: str) -> str:
    """The source of a kernel: common.cuh, then the kernel's file."""
    folder = files(__package__) / "cuda"
    texts = (folder / file for file in ("common.cuh", f"{name}.cu"))
    return "".join(text.read_text(encoding="utf-8") for text in texts)
