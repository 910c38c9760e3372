"""A check of the doctor: when it can run, and its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from . import remedies, stack
from .finding import ERROR, SKIPPED, Finding


class Check(NamedTuple):
    """One thing to check.

    Args:
        name: name of the check.
        look: yields findings; an exception that it raises is an ERROR.
        needs: names of checks; if one of them has an ERROR or was skipped, this one is,
            because its own error would have the same cause.
        modules: names of modules that ``look`` imports; if one of them is not
            installed, this check is skipped.
    """

    name: str
    look: Callable[[], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    def findings(self) -> Iterator[Finding]:
        """Run the check and yield its findings."""
        try:
            yield from self.look()
        except (Exception, SystemExit) as error:
            message = remedies.describe(error)
            yield Finding(ERROR, self.name, message, remedies.remedy_of(error))

    def obstacle(self, marks: dict[str, set[str]]) -> str | None:
        """Why the check cannot run; None if it can.

        Args:
            marks: the marks of other checks' findings, by the checks' names.
        """
        for name in self.needs:
            if marks.get(name, set()) & {ERROR, SKIPPED}:
                return f"needs {name}"
        for module in self.modules:
            if not stack.is_installed(module):
                return f"{module} is not installed"
        return None
