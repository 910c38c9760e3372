"""The doctor's checks in their order, and its verdict.

The doctor must work where nothing else does: without mmengine, with a torch that fails
or crashes when imported, in an old Python. So its files are written for Python 3.8 and
import only the standard library at the top. What can crash or hang is checked in a
subprocess.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from . import kernels, libraries, machine, remedies, stack, steps, subprocess_checks
from .result import SKIPPED, TROUBLE, Finding


class Check(NamedTuple):
    """One thing to look at.

    Args:
        name: of the check.
        look: makes findings; what it raises is a trouble.
        needs: checks whose trouble it would only repeat, causes before effects.
        modules: that it imports.
    """

    name: str
    look: Callable[[], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    def findings(self) -> Iterator[Finding]:
        try:
            yield from self.look()
        except (Exception, SystemExit) as error:
            found = remedies.describe(error)
            yield Finding(TROUBLE, self.name, found, remedies.of(error))

    def lacks(self, marks: dict[str, set[str]]) -> str | None:
        """Why it cannot be looked at, by the marks of others; None if it can."""
        for name in self.needs:
            if marks.get(name, set()) & {TROUBLE, SKIPPED}:
                return f"needs {name}"
        for module in self.modules:
            if not stack.is_there(module):
                return f"{module} is not installed"
        return None


HERE = (
    Check("Python", machine.python),
    Check("platform", machine.platform),
    Check("memory", machine.memory),
    Check("disk", machine.disk),
    Check("shared memory", machine.shared_memory),
    Check("open files", machine.open_files),
    Check("toolboxes", stack.toolboxes),
    Check("export", stack.export),
)
BASE = ("numpy", "opencv", "torch", "torchvision")
LIBRARIES = (
    Check("numpy", libraries.numpy),
    Check("opencv", libraries.opencv, ("numpy",)),
    Check("torch", libraries.torch),
    Check("GPU", libraries.gpu, ("torch",)),
    Check("torchvision", libraries.torchvision, ("torch",)),
    Check("convnext_dense", libraries.convnext_dense, BASE, ("mmengine",)),
    Check("patches", libraries.patches, ("convnext_dense",)),
    Check("kernels", kernels.kernels, ("GPU", "convnext_dense")),
    Check("mmcv ops", libraries.mmcv_ops, (*BASE, "convnext_dense"), ("mmcv",)),
)
ALL = (*BASE, "GPU", "convnext_dense", "kernels", "mmcv ops")
STEPS = (
    Check("detection", steps.detection, ALL, ("mmdet",)),
    Check("segmentation", steps.segmentation, ALL, ("mmseg",)),
)


def check_here(names: Sequence[str]) -> None:
    """Go through the checks of these names in this process, for ``examine``."""
    subprocess_checks.tell(check for check in LIBRARIES + STEPS if check.name in names)


def examine(command: Sequence[str]) -> bool:
    """Print a line for everything looked at, then whether training can start.

    Args:
        command: starts a process that calls ``check_here`` with the names after it.

    Returns:
        whether a step of a task was trained, and nothing that all need is in trouble.
    """
    # Paths in messages may have letters that the terminal's encoding has not.
    sys.stdout.reconfigure(errors="backslashreplace")
    marks: dict[str, set[str]] = {}
    for name, finding in _findings(command, marks):
        marks.setdefault(name, set()).add(finding.mark)
        print(finding, flush=True)
    names = [check.name for check in STEPS]
    trained = [name for name in names if not marks[name] & {TROUBLE, SKIPPED}]
    troubled = [name for name in marks if TROUBLE in marks[name]]
    healthy = bool(trained) and set(troubled) <= set(names)
    if healthy:
        print(f"\nTraining can start: {' and '.join(trained)}.", end="")
        print(f" Not {troubled[0]}: see its line." if troubled else "")
    else:
        print(f"\nTraining cannot start. In trouble: {', '.join(troubled)}.", end="")
        print(" Remedy the first, then look again." if troubled[1:] else "")
    return healthy


def _findings(command, marks) -> Iterator[tuple[str, Finding]]:
    for check in HERE:
        for finding in check.findings():
            yield check.name, finding
    waiting = list(LIBRARIES + STEPS)
    with _temporary_folder() as folder:
        while waiting:
            lack = waiting[0].lacks(marks)
            if lack:
                check = waiting.pop(0)
                yield check.name, Finding(SKIPPED, check.name, lack)
                continue
            ready = itertools.takewhile(lambda check: not check.lacks(marks), waiting)
            names = [check.name for check in ready]
            last = names[0]
            for last, finding in subprocess_checks.listen(command, names, folder):
                yield last, finding
            del waiting[: names.index(last) + 1]


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str | None]:
    # Its name is short, for machine.LONGEST.
    try:
        folder = tempfile.TemporaryDirectory(prefix="d-")
    except OSError:  # which the check of the disk has told
        yield None
        return
    with folder:
        yield folder.name
