"""Writes the program of a stage's forward pass, launch by launch."""

from .depthwise import convolution
from .description import NONE, STEM, Shape
from .kernels import downsample, grn, hidden, mlp, norm, parameters, products, sums
from .kernels.stem import stem_forward
from .places import Places, cdiv, padded, row_block
from .plan import CUBLAS, FUSED, HALVES, two_powers
from .program import Program, Ref, Workspace, f32

HIDDEN_ROWS, HIDDEN_CHANNELS = 16, 128  # the tile of a program of kernels.hidden
# The most programs that share the rows of a sum: about two for each multiprocessor, and
# no more than ``Program.reduce`` adds up in one launch.
MOST_SPLITS = 256


class Folded:
    """The folded parameters W1', b1', W2' and b2' of a stage's blocks.

    ``kernels.parameters`` has the formulas. The matrices are in ``types.work``, the
    biases in fp32, all in the workspace.
    """

    def __init__(self, p: Program, places: Places, workspace: Workspace):
        spec, c = places.spec, places.spec.channels
        self._c = c
        self._matrices = workspace.take(spec.blocks * 8 * c * c, places.types.work)
        self._vectors = workspace.take(spec.blocks * 5 * c, f32)
        p.triton(
            parameters.fold_blocks,
            (cdiv(4 * c, 16) + cdiv(c, 4), spec.blocks),
            [
                places.table(),
                places.parameter(places.of_block(0, 4)),
                self._matrices,
                self._vectors,
            ],
            (c, spec.layer_scale, spec.grn, min(128, padded(c))),
        )

    def of(self, block: int) -> tuple[Ref, Ref, Ref, Ref]:
        """W1' (4C, C), b1' (4C,), W2' (C, 4C) and b2' (C,) of a block."""
        c = self._c
        w1 = self._matrices.plus(block * 8 * c * c)
        b1 = self._vectors.plus(block * 5 * c)
        return w1, b1, w1.plus(4 * c * c), b1.plus(4 * c)


def forward_program(places: Places, s: Shape, train: bool) -> Program:
    """The program that computes ``out`` and ``normed`` from ``x``.

    Args:
        places: the stage's.
        s: the input's shape.
        train: whether to write the blocks' inputs to ``kept``.
    """
    spec, types = places.spec, places.types
    c, work = spec.channels, types.work
    h, w = spec.out_size(s.height, s.width)
    m = s.n * h * w
    p, ws = Program(places.bases), Workspace("ws")
    folded = Folded(p, places, ws)
    y, rstd = ws.take(m * c, work), ws.take(m, f32)
    out = Ref("out", 0, types.stream)
    if train:
        inputs = places.inputs(m)
    elif types.split:
        inputs = [ws.take(m * c, work)] * spec.blocks
    else:  # in place
        first = Ref("x", 0, work) if spec.entrance == NONE else out
        inputs = [first] + [out] * (spec.blocks - 1)

    if spec.entrance == NONE:
        stream = Ref("x", 0, types.stream)
        if types.split:
            copy_map(p, stream, inputs[0], m * c)
    else:
        # If the stream has the type of the blocks' inputs, they share their memory.
        stream = out if types.split else inputs[0]
        narrow = inputs[0] if types.split else None
        if spec.entrance == STEM:
            _stem(p, places, s, stream, narrow)
        else:
            _downsample(p, places, s, stream, narrow, ws)

    for block in range(spec.blocks):
        mark = ws.used
        last = block + 1 == spec.blocks
        convolution(p, places, inputs[block], y, (s.n, h, w, c), block)
        norm_in_place(p, places, y, rstd, m)
        target = out if types.split or last else inputs[block + 1]
        narrow = inputs[block + 1] if types.split and not last else None
        drop = places.drop(block, s.n) if s.drop else None
        branch = _Branch(p, places, s, folded.of(block), drop, block)
        branch(y, stream, target, narrow, ws)
        stream = target
        ws.used = mark

    if spec.norm and s.normed is not None:
        index = places.count - 2
        rows = row_block(c)
        p.triton(
            norm.output_norm,
            (cdiv(m, rows),),
            [
                out,
                places.parameter(index),
                places.parameter(index + 1),
                Ref("normed", 0, s.normed),
                m,
            ],
            (c, spec.eps, rows, padded(c)),
        )
    p.workspace = ws.size
    return p


def copy_map(p: Program, x: Ref, y: Ref, count: int) -> None:
    """Append y = x for ``count`` numbers, in the type of y."""
    p.triton(sums.copy_rows, (cdiv(count, 4096),), [x, y, count], (4096,))


def norm_in_place(p: Program, places: Places, y: Ref, rstd: Ref, m: int) -> None:
    """Append the normalization of the ``m`` rows of y; ``rstd`` is for the backward
    pass."""
    c = places.spec.channels
    rows = row_block(c)
    constants = (c, places.spec.eps, rows, padded(c))
    p.triton(norm.norm_rows, (cdiv(m, rows),), [y, y, rstd, m], constants)


def pieces(places: Places, m: int, pixels: int, piece: int) -> list[tuple[int, int]]:
    """Divides the rows of a map into the pieces in which hidden rows are computed.

    Args:
        places: the stage's.
        m: the number of rows (pixels of all images).
        pixels: the number of rows of an image.
        piece: the most hidden numbers of a piece, which has at least one row, and with
            GRN at least one image.

    Returns:
        The first row and the number of rows of each piece.
    """
    size = max(piece // (4 * places.spec.channels), 1)
    if places.spec.grn:
        size = max(size // pixels, 1) * pixels
    return [(first, min(size, m - first)) for first in range(0, m, size)]


def groups_of(places: Places, rows: int, pixels: int) -> tuple[int, int, int]:
    """How ``kernels.hidden`` divides a piece: (groups, rows of a group, splits)."""
    count, size = (rows // pixels, pixels) if places.spec.grn else (1, rows)
    wide = cdiv(4 * places.spec.channels, HIDDEN_CHANNELS)
    splits = cdiv(8 * places.multiprocessors, wide * count)
    return count, size, max(1, min(splits, cdiv(size, HIDDEN_ROWS)))


class _Branch:
    """Appends a block's two products, with GELU and GRN between them, and the sum with
    the residual stream."""

    def __init__(self, p, places, s, folded, drop, block):
        self.p, self.places, self.block = p, places, block
        self.c, self.plan = places.spec.channels, places.plan
        self.w1, self.b1, self.w2, self.b2 = folded
        self.drop = drop
        h, w = places.spec.out_size(s.height, s.width)
        self.pixels = h * w
        self.m = s.n * h * w

    def __call__(self, y, x, out, narrow, ws):
        """Append out = x + branch(y), and ``narrow`` = out unless it is None.

        y, the norm's output, is overwritten.
        """
        if self.plan.forward == FUSED:
            self._fused(y, x, out, narrow)
            return
        c = self.c
        rows = pieces(self.places, self.m, self.pixels, self.plan.forward_piece)
        room = ws.take(rows[0][1] * 4 * c, y.dtype)
        for first, count in rows:
            inner = y.plus(first * c)
            if self.plan.forward == CUBLAS:
                self.p.product(room, inner, self.w1, count, 4 * c, c, tb=True)
                self._activate(room, count, ws)
            else:
                self._up(inner, room, count)
            # This piece of y has been read and is free.
            self.p.product(inner, room, self.w2, count, c, 4 * c, tb=True)
        add_residual(
            self.p, c, y, self.b2, x, out, narrow, self.drop, self.m, self.pixels
        )

    def _fused(self, y, x, out, narrow):
        """Append everything as one kernel."""
        rows, columns, warps, stages = self.plan.mlp
        on = self.drop is not None
        self.p.triton(
            mlp.mlp_forward,
            (cdiv(self.m, rows),),
            [
                *(y, x, self.w1, self.b1, self.w2, self.b2, out, narrow or out),
                *(self.drop or self.b1, self.m, self.pixels),
            ],
            (
                *(self.c, *two_powers(self.c), rows, columns),
                *(self.plan.gelu, on, narrow is not None),
            ),
            warps,
            stages,
        )

    def _up(self, y, room, count):
        """Append room = gelu(y W1'^T + b1') for ``count`` rows."""
        rows, columns, depth, warps, stages = self.plan.up
        c = self.c
        self.p.triton(
            products.product,
            (cdiv(count, rows) * (4 * c // columns),),
            [y, self.w1, self.b1, room, room, count],
            (4 * c, c, rows, columns, depth, True, self.plan.gelu, False),
            warps,
            stages,
        )

    def _activate(self, room, count, ws):
        """Append GELU, with b1' before it and GRN after it, on the ``count`` rows of
        ``room`` in place."""
        p, c, places = self.p, self.c, self.places
        grn_on = places.spec.grn
        groups, size, splits = groups_of(places, count, self.pixels)
        mark = ws.used
        squares = ws.take(groups * splits * 4 * c, f32) if grn_on else self.b1
        p.triton(
            hidden.activate,
            (cdiv(4 * c, HIDDEN_CHANNELS), splits, groups),
            [room, self.b1, squares, size, splits],
            (4 * c, HIDDEN_ROWS, HIDDEN_CHANNELS, self.plan.gelu, grn_on),
        )
        if grn_on:
            scale = ws.take(groups * 4 * c, f32)
            gamma = places.parameter(places.of_block(self.block, places.spec.grn_gamma))
            constants = (4 * c, min(512, padded(4 * c)), grn.EPS)
            p.triton(
                grn.grn_scale, (groups,), [squares, gamma, scale, splits], constants
            )
            p.triton(
                hidden.scale_hidden,
                (cdiv(count, 32), cdiv(4 * c, HIDDEN_CHANNELS)),
                [room, scale, count, self.pixels],
                (4 * c, 32, HIDDEN_CHANNELS),
            )
        ws.used = mark


def add_residual(p, c, branch, bias, x, out, narrow, drop, m, pixels):
    """Append out = x + drop (branch + bias) for ``m`` rows of ``c`` channels.

    x and drop may be None. Unless ``narrow`` is None it gets the same in its own type.
    """
    block = 64 if c % 128 else 128
    p.triton(
        products.residual,
        (cdiv(m, 32), cdiv(c, block)),
        [branch, bias, x or branch, out, narrow or out, drop or bias, m, pixels],
        (c, 32, block, drop is not None, x is not None, narrow is not None),
    )


def stem_sizes(places: Places, s: Shape) -> tuple[list, int, int]:
    """The constants of the stem's kernels.

    Returns:
        Height and width of the output and the strides of image and weight; C padded to
        a power of two; and the rows of a program.
    """
    spec = places.spec
    integers = [*spec.out_size(s.height, s.width), *s.strides, *places.strides]
    cp = max(16, padded(spec.channels))
    return integers, cp, max(16, min(64, 4096 // cp))


def _stem(p, places, s, out, narrow):
    """Append the stem: a 4x4 convolution of stride 4, and LayerNorm."""
    spec = places.spec
    integers, cp, rows = stem_sizes(places, s)
    m = s.n * integers[0] * integers[1]
    p.triton(
        stem_forward,
        (cdiv(m, rows),),
        [
            Ref("x", 0, s.dtype),
            *(places.parameter(i) for i in range(4)),
            *(out, narrow or out, m, *integers),
        ],
        (
            *(spec.before, spec.channels, cp, rows, spec.eps),
            *(narrow is not None, places.types.precision),
        ),
    )


def patches(p: Program, places: Places, s: Shape, ws: Workspace) -> tuple[Ref, Ref]:
    """Append the normalization of a downsample layer's input.

    Returns:
        The normed pixels in the order of 2x2 patches, and their reciprocal standard
        deviations.
    """
    c = places.spec.before
    h, w = places.spec.out_size(s.height, s.width)
    m = s.n * s.height * s.width
    rows = ws.take(s.n * h * w * 4 * c, places.types.work)
    rstd = ws.take(m, f32)
    count = row_block(c)
    p.triton(
        downsample.norm_patches,
        (cdiv(m, count),),
        [Ref("x", 0, s.dtype), rows, rstd, m, s.height, s.width],
        (c, places.spec.eps, count, padded(c)),
    )
    return rows, rstd


def downsample_matrix(p: Program, places: Places, ws: Workspace) -> tuple[Ref, Ref]:
    """Append the folding of a downsample layer: matrix (C, 4 before) and shift (C,).

    They contain the weight and bias of norm and convolution.
    """
    spec = places.spec
    matrix = ws.take(spec.channels * 4 * spec.before, places.types.work)
    shift = ws.take(spec.channels, f32)
    numbers = places.first_parameter
    names = ("weight", "norm_weight", "norm_bias", "bias")
    p.triton(
        downsample.fold_downsample,
        (cdiv(spec.channels, 4),),
        [
            *(places.parameter(numbers[name]) for name in names),
            *(matrix, shift, *places.strides, spec.channels),
        ],
        (spec.before, 4, padded(spec.before)),
    )
    return matrix, shift


def _downsample(p, places, s, out, narrow, ws):
    """Append the downsample layer: LayerNorm, and a 2x2 convolution of stride 2."""
    spec = places.spec
    h, w = spec.out_size(s.height, s.width)
    c, depth, m = spec.channels, 4 * spec.before, s.n * h * w
    mark = ws.used
    matrix, shift = downsample_matrix(p, places, ws)
    rows, _ = patches(p, places, s, ws)
    tile = next((n for n in (128, 64, 32) if c % n == 0), 0)
    if tile and depth % 64 == 0 and places.types.work in HALVES:
        p.triton(
            products.product,
            (cdiv(m, 128) * (c // tile),),
            [rows, matrix, shift, out, narrow or out, m],
            (c, depth, 128, tile, 64, False, 0, narrow is not None),
            8,
            3 if places.plan.up[-1] == 3 else 2,
        )
    else:
        product = ws.take(m * c, places.types.work)
        p.product(product, rows, matrix, m, c, depth, tb=True)
        add_residual(p, c, product, shift, None, out, narrow, None, m, h * w)
    ws.used = mark
