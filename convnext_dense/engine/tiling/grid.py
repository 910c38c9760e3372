"""Tiles: equal squares that overlap and cover an image."""

from typing import NamedTuple

from convnext_dense.errors import InputError
from convnext_dense.utils.images import SMALLEST

OVERLAP = 0.2  # as in sahi (docs, get_sliced_prediction: overlap_height_ratio)


class Tile(NamedTuple):
    """A rectangle of an image, in pixels; the right and lower sides are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """The width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """The height in pixels."""
        return self.bottom - self.top

    def common(self, other: "Tile") -> "Tile | None":
        """The rectangle that two tiles share; None if there is none."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Tile(left, top, right, bottom) if left < right and top < bottom else None


class Tiling(NamedTuple):
    """How an image is cut into tiles.

    Attributes:
        side: width and height of a tile, in pixels. A tile is not larger than the
            image.
        overlap: the share of a side that two neighbours have in common, at least;
            from 0 up to, but not including, 1.
    """

    side: int
    overlap: float = OVERLAP

    def tiles(self, width: int, height: int) -> list[Tile]:
        """The tiles of an image, in lines along its shorter side.

        So the overlap of two lines, which ``LabelMap`` holds in memory, is short.

        >>> Tiling(4, 0.25).tiles(6, 4)
        [Tile(left=0, top=0, right=4, bottom=4), Tile(left=2, top=0, right=6, bottom=4)]
        """
        columns, rows = self._starts(width), self._starts(height)
        right, down = min(self.side, width), min(self.side, height)
        if width > height:
            places = [(x, y) for x in columns for y in rows]
        else:
            places = [(x, y) for y in rows for x in columns]
        return [Tile(x, y, x + right, y + down) for x, y in places]

    def _starts(self, length: int) -> list[int]:
        """Where the tiles begin along a side; the last one ends with the image."""
        last = length - self.side
        if last <= 0:
            return [0]
        step = max(1, int(self.side * (1 - self.overlap)))
        return [*range(0, last, step), last]


def read_flags(tile: int | None, overlap: float | None) -> Tiling | None:
    """The tiling that ``--tile`` and ``--overlap`` describe; None without ``--tile``.

    Raises:
        InputError: a value is impossible.
    """
    if overlap is not None and not 0 <= overlap < 1:  # nor is nan
        raise InputError(
            f"--overlap {overlap:g}: give the share of a tile that its neighbour also "
            "covers, 0 or more and below 1, such as 0.2"
        )
    if tile is None:
        if overlap is not None:
            raise InputError(
                "--overlap is the overlap of tiles: add --tile and the side of a tile "
                "in pixels, such as --tile 1024"
            )
        return None
    if tile < SMALLEST:
        raise InputError(
            f"--tile {tile}: give the side of a tile in pixels, at least {SMALLEST}: "
            "the deepest feature map of a smaller tile is empty"
        )
    return Tiling(tile, OVERLAP if overlap is None else overlap)
