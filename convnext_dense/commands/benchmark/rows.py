"""One line of a benchmark's table."""

from collections.abc import Sequence
from typing import NamedTuple

from .measuring import Figures
from .peers import OURS
from .steps import EAGER


class Row(NamedTuple):
    """One library, run in one way, in one setting.

    Attributes:
        library: its name.
        execution: of ``steps``.
        layout: the memory format in which it is the fastest, of those measured.
        images: in a step.
        figures: of a step, in that memory format; bytes are the least of all memory
            formats measured.
        floor: share of the step's time that the matrix products alone take here; on a
            CPU.
        backbone_ms: milliseconds that the backbone alone takes for the same images,
            of a whole model.
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
        """The library, and how it is run unless that is eager."""
        if self.execution == EAGER:
            return self.library
        return f"{self.library}, {self.execution}"

    @property
    def images_per_second(self) -> float:
        return 1e3 * self.images / self.figures.ms

    @property
    def share(self) -> float | None:
        """The backbone's share of a whole model's step."""
        return self.backbone_ms and self.backbone_ms / self.figures.ms


def ratio(rows: Sequence[Row], row: Row, figure: str) -> float | None:
    """A row's figure to the least of the peers', however they are run; below 1 is
    better. None where either was not measured."""
    own = getattr(row.figures, figure)
    theirs = [getattr(r.figures, figure) for r in rows if r.library != OURS]
    best = min(filter(None, theirs), default=None)
    return own / best if own and best else None
