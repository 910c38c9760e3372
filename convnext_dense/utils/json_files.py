"""Reads JSON files in time and memory that grow with their size, and no faster."""

import json
import os
import re
from typing import Any

from convnext_dense.errors import InputError

from .files import read_text

# No id, size or coordinate has more digits. Python's int() takes quadratic time for
# longer numbers, and refuses to read those of more than 4300 digits.
MOST_DIGITS = 100
_LONG_NUMBER = re.compile(rf"\d{{{MOST_DIGITS}}}")


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: as ``files.read_text``; the file is not JSON; it is nested deeper
            than Python can read; or a number in it is longer than ``MOST_DIGITS``.
    """
    return parse_json(read_text(path), os.fspath(path))


def parse_json(text: str, source: str) -> Any:
    """The content of JSON text.

    Args:
        source: where the text is from, for messages.

    Raises:
        InputError: as ``read_json``.
    """
    # Text of a name may have many digits, so a match alone is no error.
    numbers: dict = {}
    if _LONG_NUMBER.search(text):
        numbers = dict(parse_int=_integer, parse_float=_float)
    try:
        return json.loads(text, **numbers)
    except RecursionError as error:
        raise InputError(
            f"{source} is nested too deeply: no list or object of a data set or a "
            "checkpoint is. Write the file again"
        ) from error
    except ValueError as error:
        raise InputError(f"{source} is not JSON: {error}") from error


def _integer(digits: str) -> int:
    _check_length(digits)
    return int(digits)


def _float(digits: str) -> float:
    _check_length(digits)
    return float(digits)


def _check_length(digits: str) -> None:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits: {digits[:20]}...")
