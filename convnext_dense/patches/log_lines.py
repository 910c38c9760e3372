"""Keep text from files from steering the terminal when mmengine logs it.

mmengine lists the names of tensors that do not fit, the toolboxes the names of classes.
Both are from files, and a name can hold control characters.
"""

import copy
import functools
from collections.abc import Callable
from logging import LogRecord

from mmengine.logging.logger import MMFormatter

from convnext_dense.errors import printable


def write_out_control_characters() -> None:
    """Make mmengine's loggers write control characters as ``\\x1b`` and the like."""
    if not hasattr(MMFormatter.format, "__wrapped__"):  # not installed yet
        MMFormatter.format = _printing(MMFormatter.format)  # type: ignore[method-assign]


def _printing(plain: Callable[[MMFormatter, LogRecord], str]) -> Callable:
    @functools.wraps(plain)
    def format(self: MMFormatter, record: LogRecord) -> str:
        message = record.getMessage()
        lines = message.split("\n")
        shown = "\n".join(
            "\t".join(printable(cell, len(cell)) for cell in line.split("\t"))
            for line in lines
        )
        if shown != message:
            record = copy.copy(record)  # other handlers have formats of their own
            record.msg, record.args = shown, None
        return plain(self, record)

    return format
