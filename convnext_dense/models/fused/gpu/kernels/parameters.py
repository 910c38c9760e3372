"""Kernels that fold the parameters of all blocks of a stage, and unfold the gradients.

Scales and shifts of channels are folded into a block's two matrices. With n the norm's
weight, m its bias, f layer scale (or 1) and beta that of GRN (or 0):

    W1' = W1 diag(n)      b1' = b1 + W1 m
    W2' = diag(f) W2      b2' = f (b2 + W2 beta)

The gradients of the parameters follow from those of the folded ones (d... is a
gradient, * is elementwise, sums are over the other index):

    dW1 = dW1' diag(n) + db1' m^T      dn = sum_rows W1 * dW1'     dm = W1^T db1'
    dW2 = diag(f) (dW2' + db2' beta^T)
    df = sum_columns W2 * (dW2' + db2' beta^T) + b2 * db2'
    db1 = db1'      db2 = f db2'      dbeta = W2^T (f db2')

W1, W1' are (4C, C), W2, W2' are (C, 4C). ``table`` is int64 and has COLUMNS addresses
for each block, those of its parameters, 0 for those that it does not have. ``like`` is
any of the parameters and gives their type.
"""

import triton
import triton.language as tl

# Weight and bias of the depthwise convolution, weight and bias of the norm, w1, b1, w2,
# b2, layer scale, GRN's gamma and beta.
COLUMNS = 11
_NORM_WEIGHT, _NORM_BIAS = tl.constexpr(2), tl.constexpr(3)
_W1, _B1, _W2, _B2 = (tl.constexpr(column) for column in range(4, 8))
_GAMMA, _BETA = tl.constexpr(8), tl.constexpr(10)


@triton.jit
def _parameter(table, column, like):
    """The pointer in a column of the table."""
    return tl.multiple_of(tl.load(table + column).to(like.dtype), 16)


@triton.jit
def _load(source, place, mask):
    """Numbers in fp32, zero where masked."""
    return tl.load(source + place, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _fold_first(table, like, matrix, vector, pid, C: tl.constexpr, CB: tl.constexpr):
    """16 rows of W1' and 16 numbers of b1'."""
    w1, b1 = _parameter(table, _W1, like), _parameter(table, _B1, like)
    scale = _parameter(table, _NORM_WEIGHT, like)
    shift = _parameter(table, _NORM_BIAS, like)
    rows = pid * 16 + tl.arange(0, 16)
    valid = rows < 4 * C
    total = _load(b1, rows, valid)
    for first in range(0, C, CB):
        k = first + tl.arange(0, CB)
        inside = valid[:, None] & (k < C)[None, :]
        place = rows[:, None] * C + k[None, :]
        w = _load(w1, place, inside)
        folded = (w * _load(scale, k, k < C)[None, :]).to(matrix.dtype.element_ty)
        tl.store(matrix + place, folded, mask=inside)
        total += tl.sum(w * _load(shift, k, k < C)[None, :], 1)
    tl.store(vector + rows, total, mask=valid)


@triton.jit
def _fold_second(
    table, like, matrix, vector, pid, C: tl.constexpr, GAMMA: tl.constexpr,
    GRN: tl.constexpr, CB: tl.constexpr,
):  # fmt: skip
    """4 rows of W2' and 4 numbers of b2'."""
    w2, b2 = _parameter(table, _W2, like), _parameter(table, _B2, like)
    rows = pid * 4 + tl.arange(0, 4)
    valid = rows < C
    f = tl.full((4,), 1.0, tl.float32)
    if GAMMA:
        f = _load(_parameter(table, _GAMMA, like), rows, valid)
    total = _load(b2, rows, valid)
    for first in range(0, 4 * C, 4 * CB):
        k = first + tl.arange(0, 4 * CB)
        inside = valid[:, None] & (k < 4 * C)[None, :]
        place = rows[:, None] * (4 * C) + k[None, :]
        w = _load(w2, place, inside)
        folded = (w * f[:, None]).to(matrix.dtype.element_ty)
        tl.store(matrix + place, folded, mask=inside)
        if GRN:
            beta = _load(_parameter(table, _BETA, like), k, k < 4 * C)
            total += tl.sum(w * beta[None, :], 1)
    tl.store(vector + rows, f * total, mask=valid)


@triton.jit
def fold_blocks(
    table, like, matrices, vectors, C: tl.constexpr, GAMMA: tl.constexpr,
    GRN: tl.constexpr, CB: tl.constexpr,
):  # fmt: skip
    """W1', b1', W2' and b2' of each block.

    matrices: (blocks, 8 C C), work: W1' (4C, C), then W2' (C, 4C). vectors:
    (blocks, 5C), fp32: b1' (4C,), then b2' (C,). Grid: (4C / 16 + C / 4, blocks).
    """
    first_programs: tl.constexpr = (4 * C + 15) // 16
    pid, block = tl.program_id(0), tl.program_id(1)
    table += block * 11
    first = matrices + block.to(tl.int64) * (8 * C * C)
    vector = vectors + block * 5 * C
    if pid < first_programs:
        _fold_first(table, like, first, vector, pid, C, CB)
    else:
        second, pid2 = first + 4 * C * C, pid - first_programs
        _fold_second(table, like, second, vector + 4 * C, pid2, C, GAMMA, GRN, CB)


@triton.jit
def _finish_first(
    table, like, g_scale, g_w1, g_b1, pid, C: tl.constexpr, RB: tl.constexpr
):
    """16 columns of dW1, and 16 numbers of dn and dm, which begin at ``g_scale``."""
    w1 = _parameter(table, _W1, like)
    k = pid * 16 + tl.arange(0, 16)
    valid = k < C
    scale = _load(_parameter(table, _NORM_WEIGHT, like), k, valid)[None, :]
    shift = _load(_parameter(table, _NORM_BIAS, like), k, valid)[None, :]
    of_scale = tl.zeros((RB, 16), tl.float32)
    of_shift = tl.zeros((RB, 16), tl.float32)
    for first in range(0, 4 * C, RB):
        rows = first + tl.arange(0, RB)
        inside = (rows < 4 * C)[:, None] & valid[None, :]
        place = rows[:, None] * C + k[None, :]
        d = tl.load(g_w1 + place, mask=inside, other=0.0)
        w = _load(w1, place, inside)
        of_b1 = tl.load(g_b1 + rows, mask=rows < 4 * C, other=0.0)[:, None]
        of_scale += w * d
        of_shift += w * of_b1
        tl.store(g_w1 + place, d * scale + of_b1 * shift, mask=inside)
    tl.store(g_scale + k, tl.sum(of_scale, 0), mask=valid)
    tl.store(g_scale + C + k, tl.sum(of_shift, 0), mask=valid)


@triton.jit
def _finish_second(
    table, like, sums, g_w2, g_b2, pid, C: tl.constexpr, GAMMA: tl.constexpr,
    GRN: tl.constexpr, CB: tl.constexpr,
):  # fmt: skip
    """4 rows of dW2, and 4 numbers of db2 and of df, which lies behind db2."""
    w2, b2 = _parameter(table, _W2, like), _parameter(table, _B2, like)
    rows = pid * 4 + tl.arange(0, 4)
    valid = rows < C
    f = tl.full((4,), 1.0, tl.float32)
    if GAMMA:
        f = _load(_parameter(table, _GAMMA, like), rows, valid)
    of_b2 = tl.load(sums + rows, mask=valid, other=0.0)
    along = tl.zeros((4, CB), tl.float32)
    for first in range(0, 4 * C, CB):
        k = first + tl.arange(0, CB)
        inside = valid[:, None] & (k < 4 * C)[None, :]
        place = rows[:, None] * (4 * C) + k[None, :]
        d = tl.load(g_w2 + place, mask=inside, other=0.0)
        if GRN:
            beta = _load(_parameter(table, _BETA, like), k, k < 4 * C)
            d += of_b2[:, None] * beta[None, :]
        if GAMMA:
            along += _load(w2, place, inside) * d
        tl.store(g_w2 + place, f[:, None] * d, mask=inside)
    tl.store(g_b2 + rows, f * of_b2, mask=valid)
    if GAMMA:
        of_f = tl.sum(along, 1) + of_b2 * _load(b2, rows, valid)
        tl.store(g_b2 + C + rows, of_f, mask=valid)


@triton.jit
def _finish_beta(table, like, sums, g_beta, pid, C: tl.constexpr, GAMMA: tl.constexpr):
    """64 numbers of dbeta."""
    w2 = _parameter(table, _W2, like)
    k = pid * 64 + tl.arange(0, 64)
    valid = k < 4 * C
    total = tl.zeros((32, 64), tl.float32)
    for first in range(0, C, 32):
        rows = first + tl.arange(0, 32)
        by = tl.load(sums + rows, mask=rows < C, other=0.0)
        if GAMMA:
            by *= _load(_parameter(table, _GAMMA, like), rows, rows < C)
        inside = (rows < C)[:, None] & valid[None, :]
        place = rows[:, None] * (4 * C) + k[None, :]
        total += _load(w2, place, inside) * by[:, None]
    tl.store(g_beta + k, tl.sum(total, 0), mask=valid)


@triton.jit
def finish_blocks(
    table, like, grads, sums, C: tl.constexpr, GAMMA: tl.constexpr, GRN: tl.constexpr,
    EACH: tl.constexpr, RB: tl.constexpr, CB: tl.constexpr,
):  # fmt: skip
    """The gradients of the folded parameters become those of the parameters.

    grads: fp32, EACH numbers for each block in the order of ``StageSpec``. The places
    of w1, b1 and w2 hold dW1', db1' and dW2' before, and dW1, db1 and dW2 after. sums:
    db2', (blocks, C), fp32. Grid: (C / 16 + C / 4 + (4C / 64 with GRN), blocks).
    """
    first_programs: tl.constexpr = (C + 15) // 16
    second_programs: tl.constexpr = (C + 3) // 4
    pid, block = tl.program_id(0), tl.program_id(1)
    table += block * 11
    sums += block * C
    g_scale = grads + block.to(tl.int64) * EACH + 50 * C
    g_w1 = g_scale + 2 * C
    g_b1 = g_w1 + 4 * C * C
    g_w2 = g_b1 + 4 * C
    g_b2 = g_w2 + 4 * C * C
    if pid < first_programs:
        _finish_first(table, like, g_scale, g_w1, g_b1, pid, C, RB)
    elif pid < first_programs + second_programs:
        pid2 = pid - first_programs
        _finish_second(table, like, sums, g_w2, g_b2, pid2, C, GAMMA, GRN, CB)
    elif GRN:
        # Behind db2 come df, if there is layer scale, and the gradient of GRN's gamma.
        behind: tl.constexpr = (6 if GAMMA else 5) * C
        beyond = pid - first_programs - second_programs
        _finish_beta(table, like, sums, g_b2 + behind, beyond, C, GAMMA)
