"""A finding of a check: one line of the doctor's table."""

from __future__ import annotations

from typing import NamedTuple

OK, INFO, SKIPPED, WARNING, ERROR = "ok", "info", "skipped", "warning", "ERROR"


class Finding(NamedTuple):
    """What a check saw, and what the user can do about it.

    Args:
        mark: one of the above. Only an ERROR can keep training from starting.
        name: name of the thing that was checked.
        message: what the check saw, in one line.
        remedy: what to do about a WARNING or an ERROR; may have several lines.
    """

    mark: str
    name: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        """The line of the table, and below it the remedy."""
        margin = " " * 9
        lines = [f"{self.mark:8} {self.name:15} {' '.join(self.message.split())}"]
        for number, line in enumerate(self.remedy.splitlines()):
            lines.append(margin + ("   " if number else "-> ") + line)
        return "\n".join(lines)
