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
from .finding import TROUBLE, Finding

TOLD = "convnext_dense.doctor:"  # what the libraries print is between such lines
SECONDS = 300  # the slowest file system's import of torch
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
            return


def _print(*words: str) -> None:
    print(f"\n{TOLD}{json.dumps(words)}", flush=True)


def listen(command: Sequence[str], names: Sequence[str], folder: str | None):
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
    late = threading.Event()

    def stop():
        late.set()
        process.kill()

    timer = threading.Timer(SECONDS, stop)
    timer.start()
    current, said = names[0], collections.deque(maxlen=60)
    try:
        for line in process.stdout:
            if not line.startswith(TOLD):
                if line.strip():
                    said.append(line)
                continue
            current, *finding = json.loads(line[len(TOLD) :])
            if finding:
                yield current, Finding(*finding)
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    if late.is_set():
        yield current, Finding(TROUBLE, current, *_hung(said))
    elif code:
        yield current, Finding(TROUBLE, current, *_died(code, "".join(said)))


def _hung(said: Iterable[str]) -> Iterator[str]:
    last = " ".join(said[-1].split()) if said else "nothing"
    yield f"no end in {SECONDS} s; it said last: {last}"
    yield "see whether the machine is busy or a disk hangs, and run this again"


def _died(code: int, said: str) -> Iterator[str]:
    """What was found, and its remedy, from what the process printed at its end."""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"exit code {code}"
    # faulthandler's: the innermost place of the thread that crashed.
    place = re.search(r'Current thread.*\n +File "(.+)", line (\d+)', said)
    where = f" at {place[1]}:{place[2]}" if place else ""
    last = "" if place or not said.strip() else f": {said.strip().splitlines()[-1]}"
    yield f"crashed with {name}{where}{last}"
    remedy = remedies.of(said)
    yield CRASHES.get(name, CRASH) if remedy is remedies.UNKNOWN else remedy
