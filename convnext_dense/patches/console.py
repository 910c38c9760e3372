"""Keep a run's console short: its log file has everything.

Of the lines that a training prints before its first step, nine of ten are the config,
the environment and the order of the hooks. Nobody reads them there, and warnings
between them are lost.
"""

import copy
import functools
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger

# The beginnings of messages that are for the log file only.
_FILE_ONLY = re.compile(
    "|".join(
        (
            r"\n-+\nSystem environment:",
            r"Config:\n",
            r"Hooks will be executed in the following order",
            r"Distributed training is not used, all SyncBatchNorm",
            r"paramwise_options -- ",
            # Warnings about settings that a config cannot or need not change.
            r"The prefix is not set in metric class",
            r"\"FileClient\" will be deprecated in future",
            r"\"HardDiskBackend\" is the alias of \"LocalBackend\"",
        )
    )
)
# Warnings of libraries about their own defaults and code, the beginnings again.
_NOT_SHOWN = (
    "Default ``avg_non_ignore`` is False",
    "The draw is False, it means that the hook for visualization",
    "faster_coco_eval is not installed",  # no config here uses it
    "To copy construct from a tensor, it is recommended",
    "torch.meshgrid: in an upcoming release",
    "`create_unbacked_symint` is deprecated",
)
# mmengine's lists of tensors that a checkpoint lacks, or that have another shape.
_DO_NOT_MATCH = "The model and loaded state dict do not match exactly"
_LIST = re.compile(r"(?<=: )(?:[\w.]+, ){10,}[\w.]+")
_MOST_LINES = 6  # of such lists


@contextmanager
def short_console() -> Iterator[None]:
    """Leave out of the console in this context what is for the log file only.

    Nothing is left out of a logger without a file, or with the level DEBUG.
    """
    plain = MMLogger.callHandlers

    @functools.wraps(plain)
    def call_handlers(self: MMLogger, record: logging.LogRecord) -> None:
        files = [h for h in self.handlers if isinstance(h, logging.FileHandler)]
        if not files or self.handlers[0].level <= logging.DEBUG:
            plain(self, record)
            return
        short = shortened(record)
        for handler in self.handlers:
            shown = record if handler in files else short
            if shown and record.levelno >= handler.level:
                handler.handle(shown)

    MMLogger.callHandlers = call_handlers
    try:
        with warnings.catch_warnings():
            hide_library_warnings()
            yield
    finally:
        MMLogger.callHandlers = plain


def hide_library_warnings() -> None:
    """Show no warnings that only the authors of other libraries can act on."""
    for message in _NOT_SHOWN:
        warnings.filterwarnings("ignore", re.escape(message))


def shortened(record: logging.LogRecord) -> logging.LogRecord | None:
    """A record as the console shows it; None if it is for the log file only."""
    message = record.getMessage()
    if _FILE_ONLY.match(message):
        return None
    if not message.startswith(_DO_NOT_MATCH):
        return record
    lines = message.strip().split("\n")
    short = "\n".join(_LIST.sub(_few, line) for line in lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        short += f"\n{len(lines) - _MOST_LINES} more lines are in the log file"
    record = copy.copy(record)
    record.msg, record.args = short, None
    return record


def _few(names: re.Match) -> str:
    """The first names of a list, and how many more the log file has."""
    names = names[0].split(", ")
    return f"{', '.join(names[:3])} and {len(names) - 3} more, listed in the log file"
