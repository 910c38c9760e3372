"""The problems of a custom data set: their types, and the names that have them.

A new check needs a ``ProblemType``, made with ``error`` or ``warning`` beside the
check, and a call of ``Problems.add`` where the check finds the problem.
"""

import reprlib
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from convnext_dense.errors import printable
from convnext_dense.utils.text import LONGEST_NAME, few

LEFT_OUT = "--fix leaves them out"


class ProblemType(NamedTuple):
    """One type of problem.

    Attributes:
        stops: True for an error, which stops training; False for a warning.
        what: the images or objects that have the problem, in the plural: 'boxes
            outside their image'.
        remedy: what the user can do, or what training or ``--fix`` does with them.
    """

    stops: bool
    what: str
    remedy: str

    @property
    def level(self) -> str:
        """'error' or 'warning'."""
        return "error" if self.stops else "warning"


def error(what: str, remedy: str = LEFT_OUT) -> ProblemType:
    """A type of problem that stops training."""
    return ProblemType(True, what, remedy)


def warning(what: str, remedy: str) -> ProblemType:
    """A type of problem with which training starts."""
    return ProblemType(False, what, remedy)


# Problems of image files, which COCO files and label maps share.
UNREADABLE = error("images that cannot be read or resized")
NOT_WHOLE = warning(
    "images of which training does not read all",
    "if it needs the rest, save that as images of its own",
)
TINY = warning(
    "images with a side below 32 pixels",
    "training enlarges them if the config resizes images",
)


def shown(value: object) -> str:
    """A value from a file, of any type, as text.

    A list of a file may be long, and as deep as Python can read but not write.
    """
    return value if isinstance(value, str) else reprlib.repr(value)


def class_name_problem(name: str) -> str | None:
    """Why text cannot be the name of a class, in few words; None if it can.

    Names are drawn into images, written into tables and printed in each validation.
    """
    if len(name) > LONGEST_NAME:
        return f"it has {len(name)} characters, more than {LONGEST_NAME}"
    for character in name:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            return f"it has the control character {character!a}"
    return None


class Problems:
    """The problems of one split: for each type, the names that have it."""

    def __init__(self) -> None:
        self._names: dict[ProblemType, list[str]] = {}

    def add(self, problem_type: ProblemType, name: object) -> None:
        """Note that ``name``, such as a file or an object, has a problem."""
        names = self._names.setdefault(problem_type, [])
        names.append(printable(shown(name), LONGEST_NAME))

    def __iter__(self) -> Iterator[tuple[ProblemType, list[str]]]:
        """(type, names) pairs: errors first, then in the order of adding."""
        return iter(sorted(self._names.items(), key=lambda pair: not pair[0].stops))

    def __len__(self) -> int:
        """The number of types."""
        return len(self._names)

    @property
    def stop(self) -> bool:
        """Whether an error is among them."""
        return any(problem_type.stops for problem_type in self._names)

    def lines(self) -> list[str]:
        """A line for each type: its level, text, count, first names and remedy."""
        return [
            f"{problem.level}: {problem.what}: {len(names)} ({few(names)}); "
            f"{problem.remedy}"
            for problem, names in self
        ]
