"""Checks in a process apart, which may crash or hang while the doctor goes on.

The process goes through checks one after the other, so that torch is imported
once, and ends behind one with a trouble: what is left of an import that failed
would trouble the next check too.
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

from . import remedies
from .result import TROUBLE, Finding

TOLD = "convnext_dense.doctor:"  # what the libraries print is between such lines
END = "end"
SECONDS = 300  # a check may take; importing torch from a network's disk is slow
CRASHES = {
    "SIGKILL": "mostly the system does this when memory is full: " + remedies.MEMORY,
    "SIGILL": "a package was compiled for a newer CPU than this one: "
    "install an older version of it, or one built here",
    "SIGBUS": remedies.SHARED_MEMORY,
}
CRASH = "a compiled package there does not fit the others: " + remedies.FRESH


def tell(checks: Iterable) -> None:
    """In the process apart: look, and print findings for ``listen``."""
    faulthandler.enable()
    for check in checks:
        _print(check.name)
        marks = set()
        for finding in check.findings():
            _print(check.name, *finding)
            marks.add(finding.mark)
        if TROUBLE in marks:
            break
    _print(END)


def _print(*words: str) -> None:
    print(f"\n{TOLD}{json.dumps(words)}", flush=True)


def listen(
    command: Sequence[str], names: Sequence[str], folder: str | None
) -> Iterator[tuple[str, Finding]]:
    """Start ``command`` with ``names`` of checks; yield (name, finding) as they come.

    Args:
        folder: for temporary files, if there is one.

    Yields:
        findings of all checks, or of those up to the first with a trouble; a
        process that dies is one.
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
    current, said = names[0], collections.deque(maxlen=60)
    late = threading.Event()
    timer = _stop_later(process, late)
    try:
        for line in process.stdout:
            if not line.startswith(TOLD):
                if line.strip():
                    said.append(line)
                continue
            timer.cancel()
            timer = _stop_later(process, late)
            current, *finding = json.loads(line[len(TOLD) :])
            if finding:
                yield current, Finding(*finding)
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    if current != END:
        text = "".join(said)
        how = _hung(text) if late.is_set() else _died(code, text)
        yield current, Finding(TROUBLE, current, *how)


def _stop_later(process: subprocess.Popen, late: threading.Event) -> threading.Timer:
    def stop():
        late.set()
        process.kill()

    timer = threading.Timer(SECONDS, stop)
    timer.start()
    return timer


def _hung(said: str) -> Iterator[str]:
    yield f"no end in {SECONDS} s; it said last: {_last(said)}"
    remedy = remedies.of(said)
    unknown = "see whether the machine is busy or a disk hangs, and run this again"
    yield unknown if remedy is remedies.UNKNOWN else remedy


def _died(code: int, said: str) -> Iterator[str]:
    """What was found, and its remedy, from what the process printed at its end."""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"exit code {code}"
    # faulthandler's: the innermost place of the thread that crashed.
    place = re.search(r'Current thread.*\n +File "(.+)", line (\d+)', said)
    where = f" at {place[1]}:{place[2]}" if place else ""
    yield f"crashed with {name}{where or f', it said last: {_last(said)}'}"
    remedy = remedies.of(said)
    yield CRASHES.get(name, CRASH) if remedy is remedies.UNKNOWN else remedy


def _last(said: str) -> str:
    return said.rstrip().rpartition("\n")[2] or "nothing"
