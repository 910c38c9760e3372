"""Reads YAML as data: plain values, in time and memory that grow with its size."""

from typing import Any

import yaml

from convnext_dense.errors import InputError

LONGEST = 1_000_000  # characters; a list of 20 000 classes has 0.4 million
DEEPEST = 20  # lists and maps in each other; for more, time is quadratic
# PyYAML without its C library has only the slower one.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TextLoader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def parse_yaml(text: str, source: str, as_text: bool = False) -> Any:
    """The content of YAML text.

    Args:
        source: where the text is from, for messages.
        as_text: whether all values stay text. Else YAML takes names such as on, no,
            007 and null for True, False, 7 and None.

    Raises:
        InputError: it is not YAML, holds more than plain values, is too long or nested
            too deeply, or has aliases, with which a few lines stand for millions of
            values.

    >>> parse_yaml("names: [a, b]", "data.yaml")
    {'names': ['a', 'b']}
    """
    if len(text) > LONGEST:
        raise InputError(
            f"{source} has {len(text)} characters, and the longest YAML that is read "
            f"has {LONGEST}"
        )
    try:
        _check_events(text, source)
        return yaml.load(text, _TextLoader if as_text else _SafeLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no such date
        first = str(error).split("\n")[0]
        raise InputError(f"{source} is not YAML: {first}") from error


def _check_events(text: str, source: str) -> None:
    depth = 0
    for event in yaml.parse(text, _SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{source} has YAML aliases (*name): write the values out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise InputError(f"{source} is nested too deeply: more than {DEEPEST} deep")
