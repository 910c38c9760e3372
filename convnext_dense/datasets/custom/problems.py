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

_LEVELS = ("error", "warning", "note")


class ProblemType(NamedTuple):
    """One type of problem.

    Attributes:
        level: 'error', which stops training; 'warning'; or 'note', for what was read
            in another way than it is written, without a loss.
        what: the images or objects that have the problem, in the plural: 'boxes
            outside their image'.
        remedy: what the user can do, or what training does with them.
        fix: what ``--fix`` does with them, after 'it': 'leaves them out'.
        drops: whether these objects can only be left out of images that stay.
            Training takes them for background then, so that it must be asked for with
            ``--fix`` or ``--allow-dropped``.
    """

    level: str
    what: str
    remedy: str = ""
    fix: str = ""
    drops: bool = False

    def advice(self, fixable: bool = True) -> str:
        """What the user can do.

        Args:
            fixable: whether ``--fix`` leaves anything to train on.
        """
        parts = [self.remedy] if self.remedy else []
        if self.fix and fixable:
            flags = "--fix or --allow-dropped" if self.drops else "--fix"
            parts.append(f"{flags} {self.fix}")
        return "; ".join(parts) or "correct them in the file"


def error(what: str, remedy: str = "", fix: str = "leaves them out") -> ProblemType:
    """A type of problem that stops training."""
    return ProblemType("error", what, remedy, fix)


def dropped(what: str, remedy: str = "") -> ProblemType:
    """A type of error of objects that can only be left out of images that stay."""
    fix = "leaves them out: they become background"
    return ProblemType("error", what, remedy, fix, drops=True)


def warning(what: str, remedy: str) -> ProblemType:
    """A type of problem with which training starts."""
    return ProblemType("warning", what, remedy)


def note(what: str, remedy: str) -> ProblemType:
    """What was read in another way than it is written, without a loss."""
    return ProblemType("note", what, remedy)


# Problems of image files, which COCO files and label maps share.
UNREADABLE = error("images that cannot be read or resized")
NOT_WHOLE = warning(
    "images that training reads only in part",
    "if training needs the rest, save it as separate images",
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
    """The problems of one split: for each type, the names that have it.

    Args:
        allow_dropped: whether objects may be left out of images that stay.

    Attributes:
        fixable: whether what is left after ``--fix`` can be trained on.
    """

    def __init__(self, allow_dropped: bool = False) -> None:
        self.fixable = True
        self._allow_dropped = allow_dropped
        self._names: dict[ProblemType, list[str]] = {}

    def add(self, problem_type: ProblemType, name: object) -> None:
        """Note that ``name``, such as a file or an object, has a problem."""
        if problem_type.drops and self._allow_dropped:
            problem_type = warning(
                problem_type.what,
                "left out, because of --allow-dropped: they become background",
            )
        names = self._names.setdefault(problem_type, [])
        names.append(printable(shown(name), LONGEST_NAME))

    def __iter__(self) -> Iterator[tuple[ProblemType, list[str]]]:
        """(type, names) pairs: errors, then warnings, then notes."""
        return iter(
            sorted(self._names.items(), key=lambda pair: _LEVELS.index(pair[0].level))
        )

    def __len__(self) -> int:
        """The number of types."""
        return len(self._names)

    @property
    def stop(self) -> bool:
        """Whether an error is among them."""
        return any(problem_type.level == "error" for problem_type in self._names)

    def lines(self) -> list[str]:
        """A line for each type: its level, text, count, first names and advice."""
        return [
            f"{problem.level}: {problem.what}: {len(names)} ({few(names)}); "
            f"{problem.advice(self.fixable)}"
            for problem, names in self
        ]
