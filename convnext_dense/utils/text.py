"""Short texts for messages."""

from collections.abc import Iterable


def few(names: Iterable[object], number: int = 3) -> str:
    """The first ``number`` names, and how many more there are.

    >>> few(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    texts = list(map(str, names))
    more = len(texts) - number
    return ", ".join(texts[:number]) + (f" and {more} more" if more > 0 else "")


def reason(error: BaseException) -> str:
    """An exception's type and message, for errors that other libraries raise.

    >>> reason(KeyError("bbox"))
    "KeyError: 'bbox'"
    """
    return f"{type(error).__name__}: {str(error).strip()}"
