"""The forward pass of a stage, launch by launch."""

from .depthwise import convolution
from .description import NONE, STEM, Shape
from .kernels import downsample, grn, hidden, mlp, norm, parameters, products, sums
from .kernels.stem import stem_forward
from .places import Places, cdiv, padded, row_block
from .plan import CUBLAS, FUSED, HALVES, two_powers
from .program import Program, Ref, Workspace, f32

HIDDEN_ROWS, HIDDEN_CHANNELS = 16, 128  # of a program of kernels.hidden
# How many programs share the rows of a sum, at most: about two for each multiprocessor,
# and no more than ``Program.reduce`` adds up in one launch.
MOST_SPLITS = 256


class Folded:
    """W1', b1', W2' and b2' of a stage's blocks, in the workspace."""

    def __init__(self, p: Program, places: Places, workspace: Workspace):
        kind, c = places.kind, places.kind.channels
        self._c = c
        self._matrices = workspace.take(kind.blocks * 8 * c * c, places.types.work)
        self._vectors = workspace.take(kind.blocks * 5 * c, f32)
        p.triton(
            parameters.fold_blocks,
            (cdiv(4 * c, 16) + cdiv(c, 4), kind.blocks),
            [
                places.table(),
                places.parameter(places.of_block(0, 4)),
                self._matrices,
                self._vectors,
            ],
            (c, kind.layer_scale, kind.grn, min(128, padded(c))),
        )

    def of(self, block: int) -> tuple[Ref, Ref, Ref, Ref]:
        c = self._c
        w1 = self._matrices.plus(block * 8 * c * c)
        b1 = self._vectors.plus(block * 5 * c)
        return w1, b1, w1.plus(4 * c * c), b1.plus(4 * c)


def forward_program(places: Places, s: Shape, train: bool) -> Program:
    """From x to out and, if asked for, normed; what the backward pass needs to kept."""
    kind, types = places.kind, places.types
    c, work = kind.channels, types.work
    h, w = kind.out_size(s.height, s.width)
    m = s.n * h * w
    p, ws = Program(places.bases), Workspace("ws")
    folded = Folded(p, places, ws)
    y, rstd = ws.take(m * c, work), ws.take(m, f32)
    out = Ref("out", 0, types.stream)
    if train:
        inputs = places.inputs(m)
    elif types.split:
        inputs = [ws.take(m * c, work)] * kind.blocks
    else:  # in place
        first = Ref("x", 0, work) if kind.entrance == NONE else out
        inputs = [first] + [out] * (kind.blocks - 1)

    if kind.entrance == NONE:
        stream = Ref("x", 0, types.stream)
        if types.split:
            copy_map(p, stream, inputs[0], m * c)
    else:
        # Where the stream is no wider than the blocks' inputs it is these.
        stream = out if types.split else inputs[0]
        narrow = inputs[0] if types.split else None
        if kind.entrance == STEM:
            _stem(p, places, s, stream, narrow)
        else:
            _downsample(p, places, s, stream, narrow, ws)

    for block in range(kind.blocks):
        mark = ws.used
        last = block + 1 == kind.blocks
        convolution(p, places, inputs[block], y, (s.n, h, w, c), block)
        norm_in_place(p, places, y, rstd, m)
        target = out if types.split or last else inputs[block + 1]
        narrow = inputs[block + 1] if types.split and not last else None
        drop = places.drop(block, s.n) if s.drop else None
        branch = _Branch(p, places, s, folded.of(block), drop, block)
        branch(y, stream, target, narrow, ws)
        stream = target
        ws.used = mark

    if kind.norm and s.normed is not None:
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
            (c, kind.eps, rows, padded(c)),
        )
    p.workspace = ws.size
    return p


def copy_map(p: Program, x: Ref, y: Ref, count: int) -> None:
    """y = x, in y's type."""
    p.triton(sums.copy_rows, (cdiv(count, 4096),), [x, y, count], (4096,))


def norm_in_place(p: Program, places: Places, y: Ref, rstd: Ref, m: int) -> None:
    c = places.kind.channels
    rows = row_block(c)
    constants = (c, places.kind.eps, rows, padded(c))
    p.triton(norm.norm_rows, (cdiv(m, rows),), [y, y, rstd, m], constants)


def pieces(places: Places, m: int, pixels: int, piece: int) -> list[tuple[int, int]]:
    """The pieces in which hidden rows are computed, as (first row, number of rows).

    A piece has at most ``piece`` numbers, but at least one row. With GRN it is made of
    whole images.
    """
    size = max(piece // (4 * places.kind.channels), 1)
    if places.kind.grn:
        size = max(size // pixels, 1) * pixels
    return [(first, min(size, m - first)) for first in range(0, m, size)]


def groups_of(places: Places, rows: int, pixels: int) -> tuple[int, int, int]:
    """How the kernels of ``hidden`` divide a piece: (groups, rows of each, splits)."""
    count, size = (rows // pixels, pixels) if places.kind.grn else (1, rows)
    wide = cdiv(4 * places.kind.channels, HIDDEN_CHANNELS)
    wanted = cdiv(8 * places.multiprocessors, wide * count)
    return count, size, max(1, min(wanted, cdiv(size, HIDDEN_ROWS)))


class _Branch:
    """A block's two products, GELU and GRN between them, and the residual."""

    def __init__(self, p, places, s, folded, drop, block):
        self.p, self.places, self.block = p, places, block
        self.c, self.plan = places.kind.channels, places.plan
        self.w1, self.b1, self.w2, self.b2 = folded
        self.drop = drop
        h, w = places.kind.out_size(s.height, s.width)
        self.pixels = h * w
        self.m = s.n * h * w

    def __call__(self, y, x, out, narrow, ws):
        """out = x + the branch of y; ``narrow`` too, if there. y is used up."""
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
            # y is free by now
            self.p.product(inner, room, self.w2, count, c, 4 * c, tb=True)
        add_residual(
            self.p, c, y, self.b2, x, out, narrow, self.drop, self.m, self.pixels
        )

    def _fused(self, y, x, out, narrow):
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
        p, c, places = self.p, self.c, self.places
        grn_on = places.kind.grn
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
            gamma = places.parameter(places.of_block(self.block, places.kind.grn_gamma))
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
    """out = x + drop (branch + bias); ``narrow`` too, if there. Without x: no x."""
    block = 64 if c % 128 else 128
    p.triton(
        products.residual,
        (cdiv(m, 32), cdiv(c, block)),
        [branch, bias, x or branch, out, narrow or out, drop or bias, m, pixels],
        (c, 32, block, drop is not None, x is not None, narrow is not None),
    )


def stem_sizes(places: Places, s: Shape) -> tuple[list, int, int]:
    """The output's size and all strides, for the stem's kernels; C padded; and BM."""
    kind = places.kind
    integers = [*kind.out_size(s.height, s.width), *s.strides, *places.strides]
    cp = max(16, padded(kind.channels))
    return integers, cp, max(16, min(64, 4096 // cp))


def _stem(p, places, s, out, narrow):
    kind = places.kind
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
            *(kind.before, kind.channels, cp, rows, kind.eps),
            *(narrow is not None, places.types.precision),
        ),
    )


def patches(p: Program, places: Places, s: Shape, ws: Workspace) -> tuple[Ref, Ref]:
    """The input's normed pixels in the order of patches, and their deviations."""
    c = places.kind.before
    h, w = places.kind.out_size(s.height, s.width)
    m = s.n * s.height * s.width
    rows = ws.take(s.n * h * w * 4 * c, places.types.work)
    rstd = ws.take(m, f32)
    count = row_block(c)
    p.triton(
        downsample.norm_patches,
        (cdiv(m, count),),
        [Ref("x", 0, s.dtype), rows, rstd, m, s.height, s.width],
        (c, places.kind.eps, count, padded(c)),
    )
    return rows, rstd


def downsample_matrix(p: Program, places: Places, ws: Workspace) -> tuple[Ref, Ref]:
    """The convolution's matrix and bias with the norm's weight and bias in them."""
    kind = places.kind
    matrix = ws.take(kind.channels * 4 * kind.before, places.types.work)
    shift = ws.take(kind.channels, f32)
    numbers = places.first_parameter
    names = ("weight", "norm_weight", "norm_bias", "bias")
    p.triton(
        downsample.fold_downsample,
        (cdiv(kind.channels, 4),),
        [
            *(places.parameter(numbers[name]) for name in names),
            *(matrix, shift, *places.strides, kind.channels),
        ],
        (kind.before, 4, padded(kind.before)),
    )
    return matrix, shift


def _downsample(p, places, s, out, narrow, ws):
    kind = places.kind
    h, w = kind.out_size(s.height, s.width)
    c, depth, m = kind.channels, 4 * kind.before, s.n * h * w
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
