"""Run checks in a subprocess, which may crash or hang while the doctor goes on.

One subprocess runs several checks one after the other, so that torch is imported only
once. It ends after a check with an ERROR: a module whose import failed would disturb
the next check too.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from . import remedies
from .finding import ERROR, Finding

if TYPE_CHECKING:
    from .checks import Check

# Findings are lines with this prefix, between lines that the libraries print.
PREFIX = "convnext_dense.doctor:"
END = "end"  # in place of a check's name, after the last check
SECONDS = 300  # time limit of a check; importing torch from a network disk is slow
CRASHES = {
    "SIGKILL": "most often the system kills a process when memory is full: "
    + remedies.MEMORY,
    "SIGILL": "a package was compiled for a newer CPU than this one: "
    "install an older version of it, or compile it on this machine",
    "SIGBUS": remedies.SHARED_MEMORY,
}
CRASH = "a compiled package does not fit the others: " + remedies.FRESH


def send_findings(checks: Iterable[Check]) -> None:
    """In the subprocess: run the checks and print their findings for ``run``."""
    faulthandler.enable()
    for check in checks:
        _send(check.name)
        marks = set()
        for finding in check.findings():
            _send(check.name, *finding)
            marks.add(finding.mark)
        if ERROR in marks:
            break
    _send(END)


def _send(*words: str) -> None:
    """Print the name of a check that starts, or the name and a finding's fields."""
    print(f"\n{PREFIX}{json.dumps(words)}", flush=True)


def run(
    command: Sequence[str], names: Sequence[str], folder: str | None
) -> Iterator[tuple[str, Finding]]:
    """Start ``command`` with ``names`` of checks; yield (name, finding) as they come.

    Args:
        command: starts a process that calls ``send_findings``.
        names: appended to the command.
        folder: the subprocess's folder for temporary files; None for the system's.

    Yields:
        the findings of all checks, or of those up to the first with an ERROR. If the
        subprocess dies or hangs, that is an ERROR of the check then running.
    """
    process = subprocess.Popen(
        [*command, *names],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "TMPDIR": folder} if folder else None,
    )
    assert process.stdout is not None
    current = names[0]
    output: collections.deque[str] = collections.deque(maxlen=60)  # the last lines
    timed_out = threading.Event()
    timer = _start_timer(process, timed_out)
    try:
        for line in process.stdout:
            if not line.startswith(PREFIX):
                if line.strip():
                    output.append(line)
                continue
            timer.cancel()
            timer = _start_timer(process, timed_out)
            current, *fields = json.loads(line[len(PREFIX) :])
            if fields:
                yield current, Finding(*fields)
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    if current != END:
        text = "".join(output)
        description = _hung(text) if timed_out.is_set() else _died(code, text)
        yield current, Finding(ERROR, current, *description)


def _start_timer(
    process: subprocess.Popen, timed_out: threading.Event
) -> threading.Timer:
    """Kill the process and set ``timed_out`` in ``SECONDS``, unless cancelled."""

    def stop() -> None:
        timed_out.set()
        process.kill()

    timer = threading.Timer(SECONDS, stop)
    timer.start()
    return timer


def _hung(output: str) -> tuple[str, str]:
    """Message and remedy for a process that did not end, from its last output."""
    message = f"no result within {SECONDS} s; its last output: {_last_line(output)}"
    remedy = remedies.remedy_of(output)
    if remedy is remedies.UNKNOWN:
        remedy = "check whether the machine is busy or a disk hangs, and run this again"
    return message, remedy


def _died(code: int, output: str) -> tuple[str, str]:
    """Message and remedy for a process that crashed, from its last output."""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"exit code {code}"
    # faulthandler prints the innermost line of the thread that crashed first.
    place = re.search(r'Current thread.*\n +File "(.+)", line (\d+)', output)
    where = f" at {place[1]}:{place[2]}" if place else ""
    message = f"crashed with {name}"
    message += where or f"; its last output: {_last_line(output)}"
    remedy = remedies.remedy_of(output)
    if remedy is remedies.UNKNOWN:
        remedy = CRASHES.get(name, CRASH)
    return message, remedy


def _last_line(output: str) -> str:
    return output.rstrip().rpartition("\n")[2] or "none"
