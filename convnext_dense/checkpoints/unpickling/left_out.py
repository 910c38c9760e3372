"""Finds the objects that were left out of the content of a file."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from convnext_dense.errors import InputError
from convnext_dense.utils.text import few

from .names import LeftOut, Named
from .tensors import Storage
from .trust import TRUST


def placeholders(content: Any, path: str = "") -> Iterator[tuple[str, Named]]:
    """What stands for other objects in ``content``, each with its path of keys.

    >>> list(placeholders({"hyper_parameters": {"lr": 1}}))
    []
    """
    seen: set[int] = set()
    stack = [(path, content)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, Storage):
            value = LeftOut("torch.UntypedStorage")
        if isinstance(value, Named):
            yield path, value
            continue
        children = list(_children(value))
        if children and id(value) not in seen:
            seen.add(id(value))
            stack += ((f"{path}.{key}" if path else key, v) for key, v in children)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """The values inside a container, each with a short name."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            name = getattr(key, "name", key)
            yield f"{name!s:.80}", entry
            if isinstance(key, Named | tuple):
                yield f"{name!s:.80}", key
    elif isinstance(value, list | tuple | set | frozenset):
        for number, entry in enumerate(value):
            yield str(number), entry
    elif isinstance(value, np.ndarray) and value.dtype.kind == "O":
        yield from ((str(n), entry) for n, entry in enumerate(value.ravel()))
    elif isinstance(value, argparse.Namespace):
        yield from ((f"{key!s:.80}", entry) for key, entry in vars(value).items())


def report(content: Any) -> str:
    """One sentence on what was left out of ``content``; empty if nothing was."""
    left = list(placeholders(content))
    if not left:
        return ""
    names = dict.fromkeys(
        f"{placeholder.name} ({path.split('.')[0]})" for path, placeholder in left
    )
    objects, are = ("object", "is") if len(left) == 1 else ("objects", "are")
    return (
        f"{len(left)} {objects} that only code can build {are} left out: {few(names)}"
    )


def require_built(value: Any, name: str, source: object) -> None:
    """Check that nothing was left out of a value that is used.

    Args:
        value: of the checkpoint.
        name: of ``value`` in the checkpoint, for messages.
        source: the checkpoint's name, for messages.

    Raises:
        InputError: an object in it was left out.
    """
    for path, placeholder in placeholders(value, name):
        raise InputError(
            f"{source} was not used: its {few([path])} is a {placeholder.name}, which "
            "is not built, because that could run code; none was run. If you trust its "
            f"author, use --trust-checkpoint, or {TRUST}=1 in the environment"
        )
