"""All checks of the doctor in their order, and the verdict.

The doctor must work where nothing else does: without mmengine, with a torch that fails
or crashes when it is imported, in an old Python. So its files are written for Python
3.8 and import only the standard library at the top. Whatever can crash or hang is
checked in a subprocess.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from . import kernels, libraries, machine, remedies, stack, steps, subprocess_checks
from .finding import ERROR, SKIPPED, Finding


class Check(NamedTuple):
    """One thing to check.

    Args:
        name: name of the check.
        look: yields findings; an exception that it raises is an ERROR.
        needs: names of checks; if one of them has an ERROR, this check is skipped,
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


# Checks that need the standard library alone: they run in the doctor's own process.
STANDARD_LIBRARY = (
    Check("Python", machine.python),
    Check("platform", machine.platform),
    Check("memory", machine.memory),
    Check("disk", machine.disk),
    Check("shared memory", machine.shared_memory),
    Check("open files", machine.open_files),
    Check("toolboxes", stack.toolboxes),
    Check("export", stack.export),
)
# Checks that run in a subprocess.
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


def run_here(names: Sequence[str]) -> None:
    """Run the checks of these names in this process, which ``run_all`` started."""
    checks = (check for check in LIBRARIES + STEPS if check.name in names)
    subprocess_checks.send_findings(checks)


def run_all(command: Sequence[str]) -> bool:
    """Run all checks; print a line for each finding, then whether training can start.

    Args:
        command: starts a process that calls ``run_here`` with the names appended to
            the command.

    Returns:
        whether training can start: a training step of at least one task succeeded,
        and no check that all tasks need has an ERROR.
    """
    # Messages contain paths, which may have letters that the terminal cannot show.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    marks: dict[str, set[str]] = {}
    for name, finding in _findings(command, marks):
        marks.setdefault(name, set()).add(finding.mark)
        print(finding, flush=True)
    tasks = [check.name for check in STEPS]
    trained = [name for name in tasks if not marks[name] & {ERROR, SKIPPED}]
    failed = [name for name in marks if ERROR in marks[name]]
    healthy = bool(trained) and set(failed) <= set(tasks)
    if healthy:
        print(f"\nTraining can start: {' and '.join(trained)}.", end="")
        print(f" But {failed[0]} fails: see its line." if failed else "")
    else:
        print(f"\nTraining cannot start. Errors: {', '.join(failed)}.", end="")
        print(" Repair the first, then run the doctor again." if failed[1:] else "")
    return healthy


def _findings(
    command: Sequence[str], marks: dict[str, set[str]]
) -> Iterator[tuple[str, Finding]]:
    """Run all checks; yield each finding with the name of its check.

    Args:
        command: as of ``run_all``.
        marks: of the findings yielded so far; the caller adds them.
    """
    for check in STANDARD_LIBRARY:
        for finding in check.findings():
            yield check.name, finding
    waiting = list(LIBRARIES + STEPS)
    with _temporary_folder() as folder:
        while waiting:
            obstacle = waiting[0].obstacle(marks)
            if obstacle:
                check = waiting.pop(0)
                yield check.name, Finding(SKIPPED, check.name, obstacle)
                continue
            ready = itertools.takewhile(lambda c: not c.obstacle(marks), waiting)
            names = [check.name for check in ready]
            last = names[0]
            for last, finding in subprocess_checks.run(command, names, folder):
                yield last, finding
            # The subprocess stops after a check with an ERROR; a new one goes on.
            del waiting[: names.index(last) + 1]


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str | None]:
    """A folder that is removed at the end; None if it cannot be created."""
    # Its name is short, for machine.LONGEST_TEMPORARY.
    try:
        folder = tempfile.TemporaryDirectory(prefix="d-")
    except OSError:  # the check of the disk has reported it
        yield None
        return
    with folder:
        yield folder.name
