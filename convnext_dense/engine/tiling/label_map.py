"""The label map of a large image from the scores that a segmentor gives its tiles."""

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from .grid import Tile


class LabelMap:
    """Averages the scores of tiles where these overlap, and keeps the best class.

    The edges of all tiles cut the image into cells. The scores of a cell are held until
    its last tile has come. Of 8000 x 6000 pixels, 150 classes, tiles of 1024 and an
    overlap of 0.2, that is 0.7 GB at most, where the scores of the image are 28.8 GB.
    mmseg's slide mode averages the same, and holds the whole.

    Args:
        tiles: all tiles of the image, in the order in which they come.
        decide: scores (classes, h, w) to labels (1, h, w), as the model does it.
    """

    def __init__(self, tiles: Iterable[Tile], decide: Callable[[Tensor], Tensor]):
        tiles = list(tiles)
        self._columns = sorted({x for t in tiles for x in (t.left, t.right)})
        self._rows = sorted({y for t in tiles for y in (t.top, t.bottom)})
        self._decide = decide
        self._scores: dict[Tile, Tensor] = {}
        self._covered: dict[Tile, int] = {}  # how many tiles show a cell
        for tile in tiles:
            for cell in self._cells(tile):
                self._covered[cell] = self._covered.get(cell, 0) + 1
        self._waiting = dict(self._covered)
        self._labels: Tensor | None = None

    def add(self, tile: Tile, scores: Tensor) -> None:
        """Add the scores (classes, tile.height, tile.width) of a tile."""
        if self._labels is None:
            # Of few classes a byte: 48 million pixels are 384 MB as int64.
            dtype = torch.uint8 if len(scores) < 256 else torch.int32
            self._labels = torch.empty(
                1, self._rows[-1], self._columns[-1], dtype=dtype
            )
        for cell in self._cells(tile):
            left, top = cell.left - tile.left, cell.top - tile.top
            view = scores[:, top : top + cell.height, left : left + cell.width]
            if cell in self._scores:
                view = self._scores.pop(cell).add_(view)
            elif self._covered[cell] > 1:
                view = view.clone()  # the tile's scores are freed
            self._waiting[cell] -= 1
            if self._waiting[cell]:
                self._scores[cell] = view
            else:
                rows, columns = (
                    slice(cell.top, cell.bottom),
                    slice(cell.left, cell.right),
                )
                labels = self._decide(view.div_(self._covered[cell]))
                self._labels[:, rows, columns] = labels

    def labels(self) -> Tensor:
        """The label map (1, H, W), after all tiles have come."""
        assert self._labels is not None
        assert not self._scores
        return self._labels

    def _cells(self, tile: Tile) -> Iterator[Tile]:
        """The cells of which a tile consists."""
        columns = _between(self._columns, tile.left, tile.right)
        rows = _between(self._rows, tile.top, tile.bottom)
        for top, bottom in rows:
            for left, right in columns:
                yield Tile(left, top, right, bottom)


def _between(edges: list[int], first: int, last: int) -> list[tuple[int, int]]:
    """Pairs of neighbouring edges from ``first`` to ``last``."""
    inside = edges[bisect.bisect(edges, first) - 1 : bisect.bisect(edges, last)]
    return list(itertools.pairwise(inside))
