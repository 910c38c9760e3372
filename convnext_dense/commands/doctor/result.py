"""One line of the doctor's table."""

from __future__ import annotations

from typing import NamedTuple

OK, INFO, SKIPPED, WARNING, TROUBLE = "ok", "info", "skipped", "warning", "TROUBLE"


class Finding(NamedTuple):
    """What was found, and what to do about it.

    Args:
        mark: one of the above; only a trouble can keep training from starting.
        what: was looked at.
        found: in one line.
        remedy: of a warning or a trouble; may have several lines.
    """

    mark: str
    what: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        margin = " " * 9
        lines = [f"{self.mark:8} {self.what:15} {' '.join(self.found.split())}"]
        for number, line in enumerate(self.remedy.splitlines()):
            lines.append(margin + ("   " if number else "-> ") + line)
        return "\n".join(lines)
