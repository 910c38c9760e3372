"""Parses ``--cfg-options``: KEY=VALUE texts to settings."""

import re
from collections.abc import Sequence
from types import SimpleNamespace

from mmengine.config import DictAction

from convnext_dense.errors import InputError
from convnext_dense.utils.text import reason

# dict(...) or {...} as the value or as an entry of a list; not a word such as {}.pth.
_DICT = re.compile(r"""(^|[\[(,])\s*['"]?(dict\(|{.*}['"]?\s*($|[\]),]))""")


def parse(options: Sequence[str]) -> dict[str, object]:
    """The settings that ``--cfg-options`` names, in mmengine's notation.

    Args:
        options: KEY=VALUE texts.

    Returns:
        The keys, with their dots, and the values.

    Raises:
        InputError: an option is not KEY=VALUE, or its value cannot be read.

    >>> parse(["model.backbone.arch=tiny", "train_cfg.max_epochs=3", "scale=(64,64)"])
    {'model.backbone.arch': 'tiny', 'train_cfg.max_epochs': 3, 'scale': (64, 64)}
    """
    settings: dict[str, object] = {}
    for option in options:
        key, separator, text = option.partition("=")
        if not separator:
            raise InputError(f"--cfg-options: {option!r} is not key=value")
        settings[key] = _value(option, key, text.strip())
    return settings


def _value(option: str, key: str, text: str) -> object:
    """The value of one option.

    Dicts, calls and brackets that are not closed are refused: mmengine's parser takes
    them for words or for lists of fragments, or does not end.
    """
    problem = None
    if _DICT.search(text):
        raise InputError(
            f"--cfg-options: {option!r} cannot be read: a value cannot contain a dict. "
            f"Set the dict key by key: {key}.NAME=VALUE, or {key}.0.NAME=VALUE in a "
            f"list. Where the config has no dict yet, add {key}._delete_=True"
        )
    action, namespace = DictAction(["--cfg-options"], "values"), SimpleNamespace()
    try:
        action(None, namespace, [option])
        value = namespace.values[key]
        if isinstance(value, str) and value.startswith(("[", "(")):
            pairs = ("(", ")"), ("[", "]")
            if any(value.count(left) != value.count(right) for left, right in pairs):
                problem = "a bracket is not closed"
    except (RecursionError, AssertionError):  # what the parser raises for brackets
        problem = "its brackets do not enclose a list"
    except Exception as error:
        problem = reason(error)
    if problem:
        raise InputError(
            f"--cfg-options: {option!r} cannot be read: {problem}. Write a number, a "
            "word, True, False, None, [a,b] or (a,b)"
        )
    return value
