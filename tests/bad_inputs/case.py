"""A row of the table, and what rows are made of."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..helpers.runs import DET, SEG

__all__ = ["DET", "SEG", "Case", "Maker", "heir", "with_options", "write"]

Maker = Callable[[Path], list]


class Case(NamedTuple):
    """A mistake, and what comes of it.

    Attributes:
        tool: whose name without .py.
        given: the mistake, in words.
        arguments: makes the input in a folder, which has the built-in data set in
            ``data/shapes``, and returns the tool's arguments.
        says: what the tool says; '...' is whatever may stand there.
        code: its exit code.
        leaves: what may be new in the folder afterwards.
        environment: variables, made of the folder.
        not_root: it is no mistake where permissions do not bind.
    """

    tool: str
    given: str
    arguments: Maker
    says: str
    code: int = 2
    leaves: tuple[str, ...] = ()
    environment: Callable[[Path], dict[str, str]] = lambda folder: {}
    not_root: bool = False

    def is_said_in(self, text: str) -> bool:
        parts = (re.escape(part.strip()) for part in self.says.split("..."))
        return re.search(".*?".join(parts), " ".join(text.split())) is not None


def write(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def heir(folder: Path, text: str, base: Path = DET) -> Path:
    """A config that inherits from ``base``."""
    return write(folder / "c.py", f"_base_ = {str(base)!r}\n{text}\n")


def with_options(*options: str, config: Path = DET) -> Maker:
    return lambda folder: [config, "--cfg-options", *options]
