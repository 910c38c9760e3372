"""Short texts for messages."""

import unicodedata
from collections.abc import Iterable

from convnext_dense.errors import printable

LONGEST_NAME = 200  # characters of a name in a message


def count(number: int, noun: str) -> str:
    """A number and its noun, in the plural where it needs it.

    >>> count(1, "epoch"), count(1200, "step")
    ('1 epoch', '1200 steps')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def few(names: Iterable[object], number: int = 3) -> str:
    """The first ``number`` names, each ``printable``, and how many more there are.

    >>> few(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    names = list(names)
    more = len(names) - number
    texts = (printable(str(name), LONGEST_NAME) for name in names[:number])
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def fold(text: str) -> str:
    """Text without the difference of capitals and of composed characters.

    macOS writes decomposed characters: an e and an accent.

    >>> fold("CAFE\u0301") == fold("caf\u00e9")
    True
    """
    # A small letter may be decomposed where the capital letter is not.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def label(name: object, most: int = 60) -> str:
    """A name as matplotlib draws it: short, on one line, and never a formula.

    Matplotlib takes what is between two ``$`` for a formula, and fails at a wrong one.

    >>> label("a $5 b")
    'a \\\\$5 b'
    """
    return printable(str(name), most).replace("$", r"\$")


def reason(error: BaseException) -> str:
    """An exception's type and message, for errors that other libraries raise.

    >>> reason(KeyError("bbox"))
    "KeyError: 'bbox'"
    """
    return f"{type(error).__name__}: {str(error).strip()}"
