"""Keep lines that a user should not see out of what mmengine logs.

mmengine lists the names of tensors that do not fit, the toolboxes the names of classes.
Both are from files, and a name can hold control characters, which steer the terminal.
And mmengine prints messages that are for developers, if they have no logger.
"""

import copy
import functools
import logging
from collections.abc import Callable
from logging import LogRecord

from mmengine import logging as mmengine_logging
from mmengine.logging import logger as mmengine_logger
from mmengine.logging.logger import MMFormatter

from convnext_dense.errors import written_out


def write_out_control_characters() -> None:
    """Make mmengine's loggers write control characters as ``\\x1b`` and the like."""
    if not hasattr(MMFormatter.format, "__wrapped__"):  # not installed yet
        MMFormatter.format = _printing(MMFormatter.format)


def print_no_debug_messages() -> None:
    """Make mmengine's ``print_log`` print no message of level DEBUG."""
    plain = mmengine_logger.print_log
    if hasattr(plain, "__wrapped__"):  # installed already
        return

    @functools.wraps(plain)
    def print_log(
        msg: object, logger: object = None, level: int = logging.INFO
    ) -> None:
        if logger is not None or level > logging.DEBUG:
            plain(msg, logger, level)

    for module in (mmengine_logging, mmengine_logger):
        module.print_log = print_log


def _printing(plain: Callable[[MMFormatter, LogRecord], str]) -> Callable:
    @functools.wraps(plain)
    def format(self: MMFormatter, record: LogRecord) -> str:
        message = record.getMessage()
        lines = message.split("\n")
        shown = "\n".join(
            "\t".join(written_out(cell) for cell in line.split("\t")) for line in lines
        )
        if shown != message:
            record = copy.copy(record)  # other handlers have formats of their own
            record.msg, record.args = shown, None
        return plain(self, record)

    return format
