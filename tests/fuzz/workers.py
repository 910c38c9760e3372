"""Runs cases in a forked process, with limits, and says what became of each."""

import contextlib
import faulthandler
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import cv2
import torch

from convnext_dense.errors import InputError

from . import case, integrity, watchdog
from .targets.target import Target

MB = 2**20
LONGEST_MESSAGE = 10_000  # characters
ADDRESS_SPACE = 3000 * MB  # beyond what the process has
IDLE = 6  # seconds in which a case does nothing, until it counts as waiting for ever
MADE = "made"  # exists in the scratch folder while a case runs
CASES = 1000  # of one process; then a new one is forked
PER_MB = 5  # seconds, and MB of memory, that a case may take more for each MB of files
_NOT_PRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class Outcome(NamedTuple):
    """What became of a case.

    Attributes:
        verdict: 'ok' (it returned), 'refused' (an ``InputError``) or 'finding'.
        reason: one line.
        place: equal for findings that have the same cause, as far as one can tell.
        details: the stack, and what was printed.
    """

    verdict: str
    reason: str = ""
    place: str = ""
    details: str = ""


class Case(NamedTuple):
    """A case by its number, or with its files.

    Attributes:
        files: what ``case.archive`` returned; None makes the case from its number.
    """

    target: str
    number: int = 0
    seed: int = 0
    files: bytes | None = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what this process prints nowhere, also what code in C prints."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for handle in (*saved, nowhere):
            os.close(handle)


def one_thread() -> None:
    """Let PyTorch and OpenCV use one thread: a forked process has no others."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def warm_up(targets: Mapping[str, Target]) -> None:
    """Run each target's seeds, so that everything they import is loaded once.

    Raises:
        ValueError: half of a target's seeds are refused: mutations of them try little.
        Exception: a seed raised it.
    """
    for target in targets.values():
        refused = 0
        with tempfile.TemporaryDirectory() as folder, quiet():
            for number, files in enumerate(target.seeds()):
                place = Path(folder, str(number), "case")
                place.mkdir(parents=True)
                case.write(files, place)
                try:
                    target.run(place)
                except InputError:
                    refused += 1
        if 2 * refused > len(target.seeds()):
            raise ValueError(f"{target.name}: {refused} seeds are refused")


class Worker:
    """A process that runs one case after the other, and is replaced when it ends.

    Args:
        targets: by name; ``warm_up`` has run them.
        scratch: a folder of its own.
    """

    def __init__(self, targets: Mapping[str, Target], scratch: Path):
        self._targets = targets
        self._scratch = scratch
        self._process = 0
        self._connection: Connection | None = None
        self._left = 0

    @property
    def archive(self) -> Path:
        """The files of the case that was run last, as one archive."""
        return self._scratch / "case.tar"

    def run(self, task: Case) -> Outcome:
        """Run a case."""
        if not self._left:
            self.stop()
            self._start()
        self._left -= 1
        assert self._connection
        self._connection.send(task)
        outcome = self._wait(self._targets[task.target])
        if outcome.verdict == "finding":
            self.stop()  # the process may have been changed
        return outcome

    def stop(self) -> None:
        """End the process."""
        if self._process:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        if self._connection:
            self._connection.close()
        self._process, self._connection, self._left = 0, None, 0

    def _start(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        self._connection, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._process = os.fork()
        self._left = CASES
        if self._process:
            theirs.close()
            return
        try:
            _serve(theirs, self._targets, self._scratch)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)

    def _wait(self, target: Target) -> Outcome:
        """The outcome of the case that is running, or that it was ended, and why."""
        assert self._connection
        start = _cpu_seconds(self._process)
        busy_at, last = time.monotonic(), start
        limit = target.seconds
        archive = self.archive
        while not self._connection.poll(0.2):
            spent, state = _cpu_seconds(self._process), _state(self._process)
            with contextlib.suppress(OSError):
                limit = target.seconds + PER_MB * archive.stat().st_size / MB
            if not (self._scratch / MADE).exists():
                start = spent  # the fuzzer's own time to make the case
            if spent > last or state in "RD":
                busy_at, last = time.monotonic(), spent
            if spent - start > limit:
                return self._end(f"more than {limit:.0f} s of CPU time")
            if time.monotonic() - busy_at > IDLE:
                return self._end("it waits and does not end")
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            return self._died()

    def _end(self, reason: str) -> Outcome:
        os.kill(self._process, signal.SIGUSR1)  # faulthandler writes where it is
        time.sleep(0.3)
        return self._finding(reason)

    def _died(self) -> Outcome:
        _, status = os.waitpid(self._process, 0)
        self._process = 0
        code = os.waitstatus_to_exitcode(status)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return self._finding(f"the process died: {name}")

    def _finding(self, reason: str) -> Outcome:
        output = (self._scratch / "output").read_bytes()[-20_000:]
        details = output.decode("utf-8", "replace")
        kind = re.sub(r"[\d.]+", "", reason)
        return Outcome("finding", reason, f"{kind} {_place(details)}", details)


def _cpu_seconds(process: int) -> float:
    fields = _stat(process)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _state(process: int) -> str:
    return _stat(process)[0]


def _stat(process: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on."""
    text = Path(f"/proc/{process}/stat").read_text()
    return text.rpartition(")")[2].split()


def _place(stack: str) -> str:
    """The innermost line of the package in a stack, Python's or faulthandler's."""
    lines = re.findall(r'File ".*?/(convnext_dense/.*?)", line \d+,? in (\w+)', stack)
    if not lines:
        return ""
    # faulthandler lists the innermost call first.
    first = "most recent call first" in stack
    return " ".join(lines[0] if first else lines[-1])


# In the process of the worker


def _serve(
    connection: Connection, targets: Mapping[str, Target], scratch: Path
) -> None:
    """Run the cases that the connection names, and send each outcome."""
    output = os.open(scratch / "output", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    one_thread()
    faulthandler.enable(2, all_threads=False)
    faulthandler.register(signal.SIGUSR1, 2, all_threads=False)
    for name in ("home", "tmp", "cwd", "canaries"):
        (scratch / name).mkdir()
    (scratch / "canaries/file").write_text("unchanged")
    os.environ["HOME"] = str(scratch / "home")
    tempfile.tempdir = str(scratch / "tmp")
    os.chdir(scratch / "cwd")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit(resource.RLIMIT_AS, _status("VmSize") + ADDRESS_SPACE)
    _limit(resource.RLIMIT_FSIZE, 300 * MB)
    guard = watchdog.Watchdog([scratch / "case", scratch / "out", scratch / "tmp"])
    before = integrity.fingerprint()
    while True:
        task: Case = connection.recv()
        sys.stdout.flush()
        sys.stderr.flush()
        os.ftruncate(1, 0)
        outcome = _run(task, targets[task.target], scratch, guard, before)
        connection.send(outcome)


def _limit(which: int, number: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        number = min(number, hard)
    resource.setrlimit(which, (number, hard))


def _run(
    task: Case, target: Target, scratch: Path, guard: watchdog.Watchdog, before: dict
) -> Outcome:
    """Run one case in this process."""
    made = scratch / MADE
    made.unlink(missing_ok=True)
    if task.files is None:
        files = target.case(task.number, task.seed)
        (scratch / "case.tar").write_bytes(case.archive(files))
    else:
        (scratch / "case.tar").write_bytes(task.files)
        files = case.unarchive(task.files)
    for name in ("case", "out"):
        shutil.rmtree(scratch / name, ignore_errors=True)
        (scratch / name).mkdir()
    case.write(files, scratch / "case")
    made.touch()
    files_before = _listing(scratch, target)
    resident = _forget_peak()
    guard.start()
    error: BaseException | None = None
    try:
        target.run(scratch / "case")
    except BaseException as raised:  # also SystemExit and Forbidden
        error = raised
    reports = guard.stop()
    grown = _status("VmHWM") - resident
    limit = target.memory * MB + PER_MB * 4 * case.size(files)
    details = "".join(traceback.format_exception(error)) if error else ""
    place = _place(details)
    if reports:
        name = reports[0].partition(":")[0].partition(" of ")[0]
        return Outcome("finding", reports[0], f"{name} {place}", details)
    files_after = _listing(scratch, target)
    if files_after != files_before:
        both = files_after.items() ^ files_before.items()
        names = ", ".join(sorted({name for name, _ in both}))
        reason = f"files were written, changed or removed: {names!a:.200}"
        return Outcome("finding", reason, f"files {place}", details)
    if altered := integrity.changes(before, integrity.fingerprint()):
        reason = f"altered: {', '.join(altered)[:200]}"
        return Outcome("finding", reason, f"altered {altered[0]}", details)
    if error is not None and (reason := _unexpected(error)):
        name = f"{type(error).__name__} {reason.partition(':')[0]}"
        return Outcome("finding", reason, f"{name} {place}", details)
    if grown > limit:
        reason = f"{grown // MB} MB of memory for {case.size(files)} bytes"
        return Outcome("finding", reason, f"memory {place} {target.name}", details)
    if error is not None:
        return Outcome("refused", str(error)[:500], details=details)
    return Outcome("ok")


def _unexpected(error: BaseException) -> str | None:
    """What is wrong with what a case has raised; None for a good ``InputError``."""
    text = str(error)
    if not isinstance(error, Exception) or not hasattr(error, "exit_code"):
        return f"{type(error).__name__}: {ascii(text)[1:-1][:300]}"
    if len(text) > LONGEST_MESSAGE:
        return f"a message of {len(text)} characters"
    strange = {c for c in text if unicodedata.category(c) in _NOT_PRINTABLE} - {"\n"}
    if strange:
        return f"a message with the characters {sorted(strange)!a}"
    cause: BaseException | None = error
    for _ in range(20):
        cause = cause and (cause.__cause__ or cause.__context__)
        full = isinstance(cause, MemoryError) and not _from_parser(cause)
        if full or "allocate memory" in str(cause):
            return f"more memory than there is: {ascii(str(cause))[:200]}"
    return None


def _from_parser(error: BaseException) -> bool:
    """Whether Python's parser has raised a MemoryError: it does for deep brackets."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.endswith("/ast.py")


def _listing(scratch: Path, target: Target) -> dict[str, tuple]:
    """Size and time of each file that the case must not change, by its path."""
    allowed = tuple(f"case/{name}" for name in target.changes)
    entries: dict[str, tuple] = {}
    waiting = [os.fspath(scratch)]
    top = len(waiting[0]) + 1
    while waiting:
        for entry in os.scandir(waiting.pop()):
            name = entry.path[top:]
            if name.startswith(("output", "tmp", "case.tar", "out")):
                continue
            if (allowed and f"{name}/".startswith(allowed)) or name in allowed:
                continue
            status = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                entries[name] = ("folder",)
                waiting.append(entry.path)
            else:
                entries[name] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return entries


def _forget_peak() -> int:
    """Begin a new peak of the memory in use, and return that memory in bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key: str) -> int:
    """An entry of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(key)
