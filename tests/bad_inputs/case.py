"""A row of the table of bad inputs, and helpers that write the inputs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..helpers.runs import DET, SEG

__all__ = ["DET", "SEG", "Case", "Maker", "heir", "with_options", "write"]

Maker = Callable[[Path], list]


class Case(NamedTuple):
    """A bad input of a tool, and the message that the tool must print.

    Attributes:
        tool: name of the tool, without .py.
        mistake: the bad input, in words.
        arguments: writes the input into a folder, which has the built-in data set in
            ``data/shapes``, and returns the tool's arguments.
        says: the tool's message; '...' stands for any text.
        code: the tool's exit code.
        leaves: names of files and folders that the tool may create in the folder.
        environment: returns environment variables, from the folder.
        not_root: skip the case for root, whom file permissions do not stop.
    """

    tool: str
    mistake: str
    arguments: Maker
    says: str
    code: int = 2
    leaves: tuple[str, ...] = ()
    environment: Callable[[Path], dict[str, str]] = lambda folder: {}
    not_root: bool = False

    def is_said_in(self, text: str) -> bool:
        """Whether a tool's output has the message."""
        pieces = (re.escape(piece.strip()) for piece in self.says.split("..."))
        return re.search(".*?".join(pieces), " ".join(text.split())) is not None


def write(file: Path, content: str | bytes) -> Path:
    """Write a file, and its folder; return its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def heir(folder: Path, text: str, base: Path = DET) -> Path:
    """Write ``text`` as a config that inherits from ``base``."""
    return write(folder / "c.py", f"_base_ = {str(base)!r}\n{text}\n")


def with_options(*options: str, config: Path = DET) -> Maker:
    """Arguments: a config with ``--cfg-options``."""
    return lambda folder: [config, "--cfg-options", *options]
