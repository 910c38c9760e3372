"""Reads JSON files in time and memory that grow with their size, and no faster."""

import json
import os
import re
from collections.abc import Sequence
from typing import Any

from convnext_dense.errors import InputError

from .files import read_text

# No id, size or coordinate has more digits. Python's int() takes quadratic time for
# longer numbers, and refuses to read those of more than 4300 digits.
MOST_DIGITS = 100
_LONG_NUMBER = re.compile(rf"\d{{{MOST_DIGITS}}}")
# A letter that is written as a number, as in "\u0069mages". No program writes so.
_HIDDEN_LETTER = re.compile(r"\\u00[67][0-9a-fA-F]")


def read_json(path: str | os.PathLike, once: Sequence[str] = ()) -> Any:
    """The content of a JSON file.

    Args:
        once: keys that the object of the file must not have twice. Python's reader
            keeps the last of equal keys without a word.

    Raises:
        InputError: as ``files.read_text``; the file is not JSON; it is nested deeper
            than Python can read; a number in it is longer than ``MOST_DIGITS``; or a
            key of ``once`` is there twice.
    """
    return parse_json(read_text(path), os.fspath(path), once)


def parse_json(text: str, source: str, once: Sequence[str] = ()) -> Any:
    """The content of JSON text.

    Args:
        source: where the text is from, for messages.
        once: as for ``read_json``.

    Raises:
        InputError: as ``read_json``.
    """
    # Text of a name may have many digits, so a match alone is no error.
    numbers: dict = {}
    if _LONG_NUMBER.search(text):
        numbers = dict(parse_int=_integer, parse_float=_float)
    try:
        # Seldom, so that good files are read once.
        if any(text.count(f'"{key}"') > 1 for key in once) or (
            once and _HIDDEN_LETTER.search(text)
        ):
            _check_keys(text, source, once, numbers)
        return json.loads(text, **numbers)
    except RecursionError as error:
        raise InputError(
            f"{source} is nested too deeply: no list or object of a data set or a "
            "checkpoint is. Write the file again"
        ) from error
    except InputError:  # it is a ValueError
        raise
    except ValueError as error:
        if "\0" in text[:4]:
            raise InputError(
                f"{source} is text in UTF-16 or UTF-32, or no text: save it as UTF-8"
            ) from error
        raise InputError(f"{source} is not JSON: {error}") from error


def _check_keys(text: str, source: str, once: Sequence[str], numbers: dict) -> None:
    """Raise an InputError if the outermost object has a key of ``once`` twice."""
    keys: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        # The outermost object ends last.
        keys[:] = [key for key, _ in pairs]

    content = json.loads(text, object_pairs_hook=note, **numbers)
    for key in once:
        # Where the outermost is a list, the last object is one of its entries.
        if content is None and keys.count(key) > 1:
            raise InputError(
                f"{source} has {keys.count(key)} lists of {key}: join them into one"
            )


def _integer(digits: str) -> int:
    _check_length(digits)
    return int(digits)


def _float(digits: str) -> float:
    _check_length(digits)
    return float(digits)


def _check_length(digits: str) -> None:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits: {digits[:20]}...")
