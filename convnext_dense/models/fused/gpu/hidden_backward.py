"""Writes a block's backward pass from its output's gradient to the norm's input."""

from .description import BlockNeeds, Shape
from .forward import HIDDEN_CHANNELS, HIDDEN_ROWS, MOST_SPLITS, groups_of, pieces
from .kernels import grn, hidden, mlp, norm, products, sums
from .places import Places, cdiv, padded, row_block
from .plan import FUSED, TRITON, two_powers
from .program import Program, Ref, Sum, Workspace, f32


class HiddenBackward:
    """Appends the launches of one block.

    y is the norm's output, (M, C), and g the gradient of the block's output, (M, C).
    With

        h = y W1'^T + b1'   GELU's input, computed again
        a                   GELU's output, times GRN's scale if there is GRN
        s = g W2'           the gradient of a
        d                   the gradient of h

    the gradients of W1', b1', W2' and b2' are d^T y, the sum of d's rows, g^T a and the
    sum of g's rows. The gradient of y is d W1'.
    """

    def __init__(
        self,
        p: Program,
        places: Places,
        s: Shape,
        folded: tuple[Ref, Ref, Ref, Ref],
        block: int,
        need: BlockNeeds,
        ws: Workspace,
    ):
        self.p, self.places, self.ws = p, places, ws
        self.block, self.need = block, need
        self.w1, self.b1, self.w2, _ = folded
        self.c = places.spec.channels
        h, w = places.spec.out_size(s.height, s.width)
        self.pixels, self.m = h * w, s.n * h * w
        self.images = s.n
        self.drop = places.drop(block, s.n) if s.drop else None
        first = places.of_block(block, 0)
        self.of_dw_bias = places.gradient(first + 1)
        self.of_w1 = places.gradient(first + 4)
        self.of_b1 = places.gradient(first + 5)
        self.of_w2 = places.gradient(first + 6)

    def __call__(self, y: Ref, g: Ref, rstd: Ref, du: Ref, of_b2: Ref) -> list[Sum]:
        """Append the launches that compute ``du``, the gradient of the norm's input.

        Args:
            y: the norm's output.
            g: the gradient of the block's output.
            rstd: the reciprocal standard deviations of the norm's rows.
            du: where to write the gradient.
            of_b2: where the gradient of b2' goes.

        Returns:
            The sums of the parameters' gradients. The caller adds all sums of a block
            in one launch.
        """
        need, c = self.need, self.c
        both = need.first and need.second
        none = not (need.first or need.second or need.b1 or need.b2)
        if self.places.plan.backward == FUSED and need.norm_input and (both or none):
            return self._fused(y, g, rstd, du, of_b2)
        partial_sums = []
        if need.norm_input or need.first or need.b1 or need.second or need.grn:
            partial_sums += self._pieces(y, g, du)
        rows, warps = 2 * row_block(c), 8
        splits = min(MOST_SPLITS, cdiv(self.m, rows))
        of_g = self.ws.take(splits * c, f32)
        if need.norm_input:
            of_u = self.ws.take(splits * c, f32)
            self.p.triton(
                norm.norm_rows_backward,
                (splits,),
                [du, y, g, rstd, of_u, of_g, self._drop, self.m, splits, self.pixels],
                (c, padded(c), rows, self._drops),
                warps,
            )
            if need.dw_bias:
                partial_sums.append(Sum(of_u, self.of_dw_bias, splits, c, c))
        elif need.b2:
            self.p.triton(
                sums.column_parts,
                (splits,),
                [g, of_g, self._drop, self.m, splits, self.pixels],
                (c, padded(c), rows, self._drops),
                warps,
            )
        if need.b2:
            partial_sums.append(Sum(of_g, of_b2, splits, c, c))
        return partial_sums

    @property
    def _drop(self) -> Ref:
        """The drop path factors; any pointer without drop path."""
        return self.drop or self.b1

    @property
    def _drops(self) -> bool:
        """Whether there are drop path factors."""
        return self.drop is not None

    def _fused(self, y, g, rstd, du, of_b2) -> list[Sum]:
        """The same by the fused kernels, which keep no hidden rows in memory."""
        c, plan, need = self.c, self.places.plan, self.need
        rows, columns, warps, stages = plan.rows
        tiles = cdiv(self.m, rows)
        of_g, of_u = self.ws.take(tiles * c, f32), self.ws.take(tiles * c, f32)
        weights = self.w1, self.b1, self.w2
        halves = two_powers(c)
        assert halves is not None  # the plan is FUSED only for such channels
        self.p.triton(
            mlp.mlp_backward_rows,
            (tiles,),
            [
                *(y, g, rstd, *weights, du, of_g, of_u),
                *(self._drop, self.m, self.pixels),
            ],
            (c, *halves, rows, columns, plan.gelu, self._drops),
            warps,
            stages,
        )
        partial_sums = []
        if need.dw_bias:
            partial_sums.append(Sum(of_u, self.of_dw_bias, tiles, c, c))
        if not need.second:
            return partial_sums
        rows, columns, warps, stages = plan.weights
        blocks = 4 * c // columns
        programs = 2 * self.places.multiprocessors
        splits = max(min(programs // blocks, cdiv(self.m, rows)), 1)
        parts_w = self.ws.take(splits * 8 * c * c, f32)
        parts_b1 = self.ws.take(splits * 4 * c, f32)
        self.p.triton(
            mlp.mlp_weights,
            (blocks, splits),
            [
                *(y, g, *weights, parts_w, parts_b1),
                *(self._drop, self.m, splits, self.pixels),
            ],
            (c, *halves, rows, columns, plan.gelu, self._drops),
            warps,
            stages,
        )
        size = 4 * c * c
        return [
            *partial_sums,
            Sum(of_g, of_b2, tiles, c, c),
            Sum(parts_b1, self.of_b1, splits, 4 * c, 4 * c),
            Sum(parts_w, self.of_w1, splits, size, 2 * size),
            Sum(parts_w.plus(size), self.of_w2, splits, size, 2 * size),
        ]

    def _pieces(self, y, g, du) -> list[Sum]:
        """The same by single products, with one piece of a and d in memory."""
        c, need = self.c, self.need
        rows = pieces(self.places, self.m, self.pixels, self.places.plan.backward_piece)
        most = rows[0][1] * 4 * c
        a, d = self.ws.take(most, y.dtype), self.ws.take(most, y.dtype)
        tiled = self.places.plan.backward == TRITON
        counts = [self._parts_of(count, tiled) for _, count in rows]
        parts_b1 = self.ws.take(sum(counts) * 4 * c, f32)
        of_gamma = None
        if self.places.spec.grn:
            of_gamma = self.ws.take(self.images * 4 * c, f32)
        done = 0
        for (first, count), parts in zip(rows, counts, strict=True):
            piece_y, piece_g = y.plus(first * c), g.plus(first * c)
            piece_b1 = parts_b1.plus(done * 4 * c)
            if tiled:
                self._hidden_by_triton(piece_y, piece_g, a, d, piece_b1, first, count)
            else:
                self._hidden_by_cublas(
                    piece_y, piece_g, a, d, piece_b1, first, count, of_gamma
                )
            done += parts
            add = first > 0
            if need.norm_input:
                self.p.product(du.plus(first * c), d, self.w1, count, c, 4 * c)
            if need.first:
                of_w1 = self.of_w1, d, piece_y, 4 * c, c, count
                self.p.product(*of_w1, ta=True, add=add)
            if need.second:
                of_w2 = self.of_w2, piece_g, a, c, 4 * c, count
                self.p.product(*of_w2, ta=True, add=add)
        partial_sums = []
        if need.b1:
            partial_sums.append(Sum(parts_b1, self.of_b1, done, 4 * c, 4 * c))
        if of_gamma is not None and need.grn:
            index = self.places.of_block(self.block, self.places.spec.grn_gamma)
            target = self.places.gradient(index)
            partial_sums.append(Sum(of_gamma, target, self.images, 4 * c, 4 * c))
        return partial_sums

    def _parts_of(self, count: int, tiled: bool) -> int:
        """How many partial sums of b1's gradient a piece of ``count`` rows writes."""
        if tiled:
            return cdiv(count, self.places.plan.hidden[0])
        groups, _, splits = groups_of(self.places, count, self.pixels)
        return groups * splits

    def _hidden_by_triton(self, y, g, a, d, parts_b1, first, count):
        """Append a and d of a piece, by one Triton kernel."""
        rows, columns, depth, warps, stages = self.places.plan.hidden
        self.p.triton(
            products.hidden_backward_product,
            (cdiv(count, rows) * (4 * self.c // columns),),
            [
                *(y, g, self.w1, self.b1, self.w2, a, d, parts_b1),
                *(self._drop, count, self.pixels, first),
            ],
            (self.c, rows, columns, depth, self.places.plan.gelu, self._drops),
            warps,
            stages,
        )

    def _hidden_by_cublas(self, y, g, a, d, parts_b1, first, count, of_gamma):
        """Append a and d of a piece, by two cuBLAS products and Triton kernels."""
        p, c, ws = self.p, self.c, self.ws
        wide, exact = 4 * c, self.places.plan.gelu
        p.product(a, y, self.w1, count, wide, c, tb=True)
        p.product(d, g, self.w2, count, wide, c)
        groups, size, splits = groups_of(self.places, count, self.pixels)
        grid = cdiv(wide, HIDDEN_CHANNELS), splits, groups
        tile = HIDDEN_ROWS, HIDDEN_CHANNELS
        mark = ws.used
        scale = slope = self.b1
        grn_on = self.places.spec.grn
        if grn_on:
            image = first // self.pixels
            drop = self._drop.plus(image) if self._drops else self._drop
            squares, along = (ws.take(groups * splits * wide, f32) for _ in range(2))
            scale, slope = (ws.take(groups * wide, f32) for _ in range(2))
            p.triton(
                hidden.grn_sums,
                grid,
                [a, d, self.b1, squares, along, drop, size, splits],
                (wide, *tile, exact, self._drops),
            )
            index = self.places.of_block(self.block, self.places.spec.grn_gamma)
            p.triton(
                grn.grn_slopes,
                (groups,),
                [
                    *(squares, along, self.places.parameter(index), scale, slope),
                    *(of_gamma.plus(image * wide), splits),
                ],
                (wide, min(512, padded(wide)), grn.EPS),
            )
        p.triton(
            hidden.hidden_backward,
            grid,
            [
                *(a, d, self.b1, scale, slope, self._drop, parts_b1),
                *(size, first, self.pixels, splits),
            ],
            (wide, *tile, exact, grn_on, self._drops),
        )
        ws.used = mark
