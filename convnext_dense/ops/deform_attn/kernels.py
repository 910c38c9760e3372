"""The Triton kernels of multi-scale deformable attention.

A program has one head of one image and QB consecutive queries, so that neighbouring
samples share cells in the cache. Row r of its tile is point r % KP of query r // KP; it
takes the levels in turn. Columns are the head's channels. A row's bilinear weights are
computed once for all channels, and no sample leaves the registers.

Constants: M heads, D channels of a head, L levels, K points; DP and KP are D and K
rounded up to powers of two. CELL is the integer type of an offset inside an image's
value: int32 where it suffices, since 64 bits take two registers. All numbers are
computed in fp32.

Grid: (Q / QB, M, N). Shapes are those of the package's docstring, all contiguous.
"""

import triton
import triton.language as tl

# Numbers that change with the image size: Triton must not specialize on their values,
# so that one compiled kernel serves all of them.
_SIZES = ["Q", "S"]


@triton.jit
def _rows(Q, M: tl.constexpr, L: tl.constexpr, K: tl.constexpr, KP: tl.constexpr,
          QB: tl.constexpr):  # fmt: skip
    """The rows of this program.

    Returns:
        first: the program's first query, counted over all images.
        query: each row's query, from ``first`` on.
        sample: each row's point in level 0, from the first query's first sample on.
        real: whether the row has a query and a point.
    """
    start = tl.program_id(0) * QB
    row = tl.arange(0, QB * KP)
    query, point = row // KP, row % KP
    first = tl.program_id(2).to(tl.int64) * Q + start
    sample = (query * M + tl.program_id(1)) * (L * K) + point
    return first, query, sample, (start + query < Q) & (point < K)


@triton.jit
def _level(shapes, starts, level):
    """Height, width and first cell of a level."""
    height = tl.load(shapes + 2 * level).to(tl.int32)
    width = tl.load(shapes + 2 * level + 1).to(tl.int32)
    return height, width, tl.load(starts + level).to(tl.int32)


@triton.jit
def _position(locations, sample, real, H, W):
    """Where each row samples a map of H x W, counted in cells.

    Returns:
        x, y: the cell to the upper left of the sample, -1 .. W - 1 and -1 .. H - 1.
        right, down: how far the sample is from that cell's centre, 0 .. 1.
        inside: whether the sample is less than a cell away from a centre. It is not if
            its location is NaN.
    """
    x = tl.load(locations + 2 * sample, mask=real, other=-1.0).to(tl.float32)
    y = tl.load(locations + 2 * sample + 1, mask=real, other=-1.0).to(tl.float32)
    x, y = x * W - 0.5, y * H - 0.5
    inside = real & (x > -1) & (y > -1) & (x < W) & (y < H)
    x, y = tl.where(inside, x, 0.0), tl.where(inside, y, 0.0)
    left, top = tl.floor(x), tl.floor(y)
    return left.to(tl.int32), top.to(tl.int32), x - left, y - top, inside


@triton.jit
def _corner(i: tl.constexpr, x, y, right, down, inside, H, W):
    """Corner i = 0 .. 3 of the four cells around each sample, row by row.

    Returns:
        across, along: its bilinear weight is their product.
        cell: its index in the map.
        valid: whether it lies in the map.
    """
    across = right if i % 2 else 1 - right
    along = down if i // 2 else 1 - down
    column, line = x + i % 2, y + i // 2
    valid = inside & (column >= 0) & (column < W) & (line >= 0) & (line < H)
    return across, along, line * W + column, valid


@triton.jit(do_not_specialize=_SIZES)
def forward(
    value, shapes, starts, locations, weights, out, Q, S, M: tl.constexpr,
    D: tl.constexpr, L: tl.constexpr, K: tl.constexpr, DP: tl.constexpr,
    KP: tl.constexpr, QB: tl.constexpr, CELL: tl.constexpr,
):  # fmt: skip
    """out = sum over levels and points of weight times the sampled value.

    value, locations, weights and out: any float types.
    """
    first, query, sample, real = _rows(Q, M, L, K, KP, QB)
    head = tl.program_id(1)
    channel = tl.arange(0, DP)
    value += (tl.program_id(2).to(tl.int64) * S * M + head) * D
    locations += first * (M * L * K * 2)
    weights += first * (M * L * K)
    total = tl.zeros((QB * KP, DP), tl.float32)
    for level in range(L):
        H, W, start = _level(shapes, starts, level)
        x, y, right, down, inside = _position(locations, sample, real, H, W)
        weight = tl.load(weights + sample, mask=inside, other=0.0).to(tl.float32)
        for i in tl.static_range(4):
            across, along, cell, valid = _corner(i, x, y, right, down, inside, H, W)
            place = (start + cell).to(CELL)[:, None] * (M * D) + channel[None, :]
            mask = valid[:, None] & (channel < D)[None, :]
            corner = tl.load(value + place, mask=mask, other=0.0).to(tl.float32)
            total += (weight * across * along)[:, None] * corner
        sample += K
    result = tl.sum(tl.reshape(total, (QB, KP, DP)), 1)
    query = tl.arange(0, QB)
    out += (first * M + head) * D
    mask = (tl.program_id(0) * QB + query < Q)[:, None] & (channel < D)[None, :]
    place = query[:, None] * (M * D) + channel[None, :]
    tl.store(out + place, result.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=_SIZES)
def backward(
    value, shapes, starts, locations, weights, grad, of_value, of_locations,
    of_weights, Q, S, M: tl.constexpr, D: tl.constexpr, L: tl.constexpr,
    K: tl.constexpr, DP: tl.constexpr, KP: tl.constexpr, QB: tl.constexpr,
    CELL: tl.constexpr,
):  # fmt: skip
    """The gradients, from ``grad``, that of ``out``.

    With g the gradient of a query's output, A a sample's weight, b_i the bilinear
    weight of its corner i, v_i the value there and d_i = g . v_i:

        dv_i += A b_i g        dA = sum_i b_i d_i        dp = A sum_i d_i db_i / dp

    of_value: like value, but fp32; it is added to, by atomic additions, whose order
    differs from call to call. of_locations and of_weights: any float types, written.
    """
    first, query, sample, real = _rows(Q, M, L, K, KP, QB)
    head = tl.program_id(1)
    # Four channels a thread, of the value as of its gradient: atomic additions take no
    # more at a time, and half precision would else be loaded in another layout.
    channel = tl.max_contiguous(tl.arange(0, DP), 4)
    of_image = (tl.program_id(2).to(tl.int64) * S * M + head) * D
    value += of_image
    of_value += of_image
    locations += first * (M * L * K * 2)
    of_locations += first * (M * L * K * 2)
    weights += first * (M * L * K)
    of_weights += first * (M * L * K)
    grad += (first * M + head) * D
    mask = real[:, None] & (channel < D)[None, :]
    place = query[:, None] * (M * D) + channel[None, :]
    g = tl.load(grad + place, mask=mask, other=0.0).to(tl.float32)
    for level in range(L):
        H, W, start = _level(shapes, starts, level)
        x, y, right, down, inside = _position(locations, sample, real, H, W)
        weight = tl.load(weights + sample, mask=inside, other=0.0).to(tl.float32)
        of_weight = tl.zeros((QB * KP,), tl.float32)
        of_x = tl.zeros((QB * KP,), tl.float32)
        of_y = tl.zeros((QB * KP,), tl.float32)
        for i in tl.static_range(4):
            across, along, cell, valid = _corner(i, x, y, right, down, inside, H, W)
            place = (start + cell).to(CELL)[:, None] * (M * D) + channel[None, :]
            mask = valid[:, None] & (channel < D)[None, :]
            corner = tl.load(value + place, mask=mask, other=0.0).to(tl.float32)
            added = (weight * across * along)[:, None] * g
            tl.atomic_add(of_value + place, added, mask=mask, sem="relaxed")
            dot = tl.sum(g * corner, 1)
            of_weight += across * along * dot
            of_x += (2 * (i % 2) - 1) * along * dot
            of_y += (2 * (i // 2) - 1) * across * dot
        to = of_locations + 2 * sample
        of_x, of_y = weight * W * of_x, weight * H * of_y
        tl.store(to, of_x.to(of_locations.dtype.element_ty), mask=real)
        tl.store(to + 1, of_y.to(of_locations.dtype.element_ty), mask=real)
        of_weight = of_weight.to(of_weights.dtype.element_ty)
        tl.store(of_weights + sample, of_weight, mask=real)
        sample += K
