"""What is wrong with somebody's data: each kind of trouble, with whom it befell."""

from typing import NamedTuple

FEW = 3  # names in a line; a page shows more


class Kind(NamedTuple):
    """A kind of trouble.

    Attributes:
        stops: whether it is an error, which stops a run; else a warning.
        what: goes on after a count: '3 images: cannot be read'.
        remedy: what to do; what is left out by ``--fix`` if that helps.
    """

    stops: bool
    what: str
    remedy: str

    @property
    def level(self) -> str:
        return "error" if self.stops else "warning"


class Findings:
    """Names by kind of trouble, in the order of their finding."""

    def __init__(self):
        self._names: dict[Kind, list[str]] = {}

    def add(self, kind: Kind, name: object) -> None:
        self._names.setdefault(kind, []).append(str(name))

    def __iter__(self):
        """(kind, names) pairs, errors first."""
        return iter(sorted(self._names.items(), key=lambda pair: not pair[0].stops))

    def __len__(self) -> int:
        return len(self._names)

    @property
    def stop(self) -> bool:
        return any(kind.stops for kind in self._names)

    def lines(self) -> list[str]:
        return [
            f"{kind.level}: {kind.what}: {len(names)} ({few(names)}); {kind.remedy}"
            for kind, names in self
        ]


def few(names: list[str], number: int = FEW) -> str:
    """The first names, and how many more there are."""
    more = len(names) - number
    return ", ".join(names[:number]) + (f" and {more} more" if more > 0 else "")
