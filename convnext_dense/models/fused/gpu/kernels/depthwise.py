"""Kernels of the depthwise 7x7 convolution in Triton, on a GPU's fp32 units.

They serve what the tensor-core kernels in ``cuda/`` do not: fp32 maps, channels that
are not a multiple of 8, older GPUs. Maps are (N, H, W, C), contiguous. Products and
sums are in fp32 (no TF32).

Both kernels divide a map in the same way: a program has a tile of ROWS x WIDE pixels of
CB channels. A loaded row of pixels serves up to 7 rows of the 7x7 kernel. Programs that
share rows run close to each other, so the rows are in the cache.

Triton cannot change a tuple, only build a new one. So the sums of several rows or taps
are tuples that are rebuilt for each row that is read.
"""
# ruff: noqa: RUF005 (Triton cannot unpack into a tuple)

import triton
import triton.language as tl


def convolution_tile(channels: int) -> tuple[int, int, int, int]:
    """ROWS, WIDE, CB and the number of warps of a program, for both kernels.

    A thread of ``convolution`` has 64 sums. More would not fit in its registers; with
    fewer, less of what is loaded is shared. If four channels cannot be read as a
    vector, addresses take registers too, and a thread has 32 sums.
    """
    if channels % 4:
        return 8, 16, 32, 4
    return (8, 16, 64, 4) if channels % 64 == 0 else (8, 32, 32, 4)


def convolution_grid(n: int, h: int, w: int, channels: int) -> tuple[int, int]:
    """The grid of ``convolution``: pixel tiles of all images, blocks of channels."""
    rows, wide, block, _ = convolution_tile(channels)
    return n * triton.cdiv(h, rows) * triton.cdiv(w, wide), triton.cdiv(channels, block)


def weight_gradient_splits(
    n: int, h: int, w: int, channels: int, multiprocessors: int
) -> int:
    """SPLITS of ``weight_gradient``: how many programs share the tiles of all images.

    With ``tiles, blocks = convolution_grid(n, h, w, channels)``, the grid is
    ``(7, blocks, splits)`` and UNITS is ``tiles``. That makes about eight programs for
    each multiprocessor: enough to fill it, and few partial sums to add.
    """
    tiles, blocks = convolution_grid(n, h, w, channels)
    return max(1, min(tiles, 8 * multiprocessors // (7 * blocks)))


@triton.jit
def tile_of(unit, H, W, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """The image (int64), top row and columns (WIDE,) of tile number ``unit``."""
    across = tl.cdiv(W, WIDE)
    bands = tl.cdiv(H, ROWS)
    band = unit // across
    columns = unit % across * WIDE + tl.arange(0, WIDE)
    return (band // bands).to(tl.int64), band % bands * ROWS, columns


@triton.jit
def load_row(pixels, n, row, columns, channels, H, W, C: tl.constexpr):
    """The pixels of a row in fp32, (WIDE, CB); zero outside of the image."""
    inside = ((columns >= 0) & (columns < W))[:, None] & (channels < C)[None, :]
    place = columns[:, None] * C + channels[None, :]
    value = tl.load(
        pixels + (n * H + row) * W * C + place,
        mask=inside & (row >= 0) & (row < H),
        other=0.0,
    )
    return value.to(tl.float32)


@triton.jit
def store_row(pixels, value, n, row, columns, channels, H, W, C: tl.constexpr):
    """Store the pixels of a row, (WIDE, CB), that lie in the image."""
    inside = ((columns >= 0) & (columns < W))[:, None] & (channels < C)[None, :]
    place = columns[:, None] * C + channels[None, :]
    tl.store(
        pixels + (n * H + row) * W * C + place,
        value.to(pixels.dtype.element_ty),
        mask=inside & (row >= 0) & (row < H),
    )


@triton.jit(do_not_specialize=["H", "W"])
def convolution(
    x, weight, bias, g, wide, y, H, W,
    C: tl.constexpr, FLIP: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, CB: tl.constexpr,
):  # fmt: skip
    """The convolution of a map, or the gradient of its input.

        y[n, i, j, c] = bias[c] + sum over a, b = -3 .. 3 of
                        weight[c, 0, a + 3, b + 3] x[n, i + a, j + b, c]

    x, y      maps (N, H, W, C) of one float type, in different buffers
    weight    (C, 1, 7, 7), contiguous, fp32 or 16 bits; rounded to the type of x, as
              autocast does
    bias      (C,), any float type, added if BIAS
    FLIP      rotates the kernel by 180 degrees: if x is the gradient of the output, y
              is that of the input
    ADD       0: y is the convolution
              1: g, a map of the type of x and y, is added
              2: g, a map in fp32, is added; the fp32 sum goes to ``wide``, and rounded
              to y
    y or wide may be the buffer of g.

    Grid: ``convolution_grid``.
    """
    n, top, columns = tile_of(tl.program_id(0), H, W, ROWS, WIDE)
    channels = tl.program_id(1) * CB + tl.arange(0, CB)
    # With 16-bit maps a thread would take eight adjoining channels, and hold 56 taps
    # beside its sums. It takes four, as with fp32 maps.
    channels = tl.max_contiguous(channels, 4)
    valid = channels < C
    start = tl.zeros((WIDE, CB), tl.float32)
    if BIAS:
        shift = tl.load(bias + channels, mask=valid, other=0.0)
        start += shift.to(tl.float32)[None, :]
    sums = ()  # of ROWS rows
    for _ in tl.static_range(ROWS):
        sums = sums + (start,)
    for k in range(7):  # the kernel's columns; unrolled, they take too many registers
        taps = ()
        for i in tl.static_range(7):
            tap = i * 7 + k
            if FLIP:
                tap = 48 - tap
            factor = tl.load(weight + channels * 49 + tap, mask=valid, other=0.0)
            factor = factor.to(x.dtype.element_ty).to(tl.float32)
            taps = taps + (factor[None, :],)
        for r in tl.static_range(ROWS + 6):
            value = load_row(x, n, top + r - 3, columns + k - 3, channels, H, W, C)
            added = ()
            for i in tl.static_range(ROWS):
                if r - i >= 0 and r - i < 7:
                    added = added + (sums[i] + value * taps[r - i],)
                else:
                    added = added + (sums[i],)
            sums = added
    for i in tl.static_range(ROWS):
        row = top + i
        total = sums[i]
        if ADD > 0:
            total += load_row(g, n, row, columns, channels, H, W, C)
        if ADD == 2:
            store_row(wide, total, n, row, columns, channels, H, W, C)
        store_row(y, total, n, row, columns, channels, H, W, C)


@triton.jit(do_not_specialize=["H", "W", "UNITS", "SPLITS"])
def weight_gradient(
    x, grad, partial, H, W, UNITS, SPLITS,
    C: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, CB: tl.constexpr,
):  # fmt: skip
    """Partial sums of the gradient of the convolution's weight.

        partial[s, c, 7 a + b] = sum over the pixels (n, i, j) of split s of
                                 grad[n, i, j, c] x[n, i + a - 3, j + b - 3, c]

    x         the convolution's input, (N, H, W, C), any float type
    grad      the gradient of its output, of the same shape and type
    partial   (SPLITS, C, 49), fp32; all of it is written
    UNITS     the number of tiles in all images

    Grid: (7 columns of the kernel, blocks of channels, SPLITS). Seven programs in a row
    read the same tiles; each computes the seven taps of one column.
    """
    k = tl.program_id(0)
    channels = tl.program_id(1) * CB + tl.arange(0, CB)
    split = tl.program_id(2)
    sums = ()  # of seven taps
    for _ in tl.static_range(7):
        sums = sums + (tl.zeros((WIDE, CB), tl.float32),)
    for unit in range(split, UNITS, SPLITS):
        n, top, columns = tile_of(unit, H, W, ROWS, WIDE)
        grads = ()
        for i in tl.static_range(ROWS):
            grads = grads + (load_row(grad, n, top + i, columns, channels, H, W, C),)
        for r in tl.static_range(ROWS + 6):
            value = load_row(x, n, top + r - 3, columns + k - 3, channels, H, W, C)
            added = ()
            for i in tl.static_range(7):
                if r - i >= 0 and r - i < ROWS:
                    added = added + (sums[i] + value * grads[r - i],)
                else:
                    added = added + (sums[i],)
            sums = added
    place = (split * C + channels) * 49 + k
    for i in tl.static_range(7):
        tl.store(partial + place + i * 7, tl.sum(sums[i], 0), mask=channels < C)
