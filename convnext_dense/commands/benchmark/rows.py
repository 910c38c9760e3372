"""A row of a benchmark's table, and ratios between rows."""

from collections.abc import Sequence
from typing import NamedTuple

from .measuring import Figures
from .peers import OURS
from .steps import EAGER


class Row(NamedTuple):
    """A library, run in one way, in one setting.

    Attributes:
        library: the library's name.
        execution: how it is run, see ``steps``.
        layout: the fastest of the memory formats measured.
        images: number of images in a step.
        figures: the step's figures in that memory format; bytes are the least over all
            memory formats measured.
        floor: the time of the matrix products alone / the step's time; on a CPU only.
        backbone_ms: milliseconds of the backbone alone, for the same images; for whole
            models only.
    """

    library: str
    execution: str
    layout: str
    images: int
    figures: Figures
    floor: float | None = None
    backbone_ms: float | None = None

    @property
    def name(self) -> str:
        """The library, and how it is run unless eagerly."""
        if self.execution == EAGER:
            return self.library
        return f"{self.library}, {self.execution}"

    @property
    def images_per_second(self) -> float:
        """Throughput of the step."""
        return 1e3 * self.images / self.figures.ms

    @property
    def share(self) -> float | None:
        """The backbone's share of a whole model's step."""
        return self.backbone_ms and self.backbone_ms / self.figures.ms


def ratio(rows: Sequence[Row], row: Row, figure: str) -> float | None:
    """A row's figure / the smallest of the peers', however they are run.

    Below 1 is better than every peer. None if either was not measured.

    Args:
        rows: all rows of the setting.
        row: one of them.
        figure: name of an attribute of ``Figures``.
    """
    value = getattr(row.figures, figure)
    peers = [getattr(r.figures, figure) for r in rows if r.library != OURS]
    best = min(filter(None, peers), default=None)
    return value / best if value and best else None
