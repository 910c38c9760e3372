"""Runs cases of all targets for a time, keeps the findings, and prints a table."""

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from .targets.target import Target
from .workers import Case, Outcome, Worker


class Campaign:
    """Cases of all targets, in turn.

    The seed and the number of a case decide what it is; the time decides only how many
    cases each target gets.

    Args:
        targets: by name.
        seed: of all cases.
        findings: the folder for the files of findings.
        scratch: a folder for the process that runs the cases.
        known: places of findings (``Outcome.place``) that are not reported again.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        seed: int,
        findings: Path,
        scratch: Path,
    ):
        self._targets = targets
        self._seed = seed
        self._folder = findings
        self._worker = Worker(targets, scratch)
        self._counts: dict[str, Counter] = {name: Counter() for name in targets}
        self._seconds = dict.fromkeys(targets, 0.0)
        self._places: Counter[str] = Counter()
        self.findings: list[str] = []

    def run(self, seconds: float, cases: int | None = None, first: int = 0) -> None:
        """Run for so many seconds.

        Args:
            cases: of each target, at most.
            first: number of the first case of each target.
        """
        end = time.monotonic() + seconds
        waiting = dict.fromkeys(self._targets, first)
        while waiting and time.monotonic() < end:
            name = min(waiting, key=self._turn)
            self._run(name, waiting[name])
            waiting[name] += 1
            if cases is not None and waiting[name] >= first + cases:
                del waiting[name]
        self._worker.stop()

    def _turn(self, name: str) -> float:
        """The target with the smallest number is next."""
        return self._seconds[name] / self._targets[name].share

    def _run(self, name: str, number: int) -> None:
        start = time.monotonic()
        outcome = self._worker.run(Case(name, number, self._seed))
        self._seconds[name] += time.monotonic() - start
        self._counts[name]["cases"] += 1
        self._counts[name][outcome.verdict] += 1
        if outcome.verdict == "finding":
            self._places[outcome.place] += 1
            if self._places[outcome.place] == 1:
                self._save(name, number, outcome)

    def _save(self, name: str, number: int, outcome: Outcome) -> None:
        """Keep the case, its reason and its stack, and print the reason."""
        files = self._worker.archive.read_bytes()
        digest = hashlib.blake2b(files, digest_size=4).hexdigest()
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{name}-{self._seed}-{digest}.tar"
        file.write_bytes(files)
        text = f"{outcome.reason}\ncase {number} of seed {self._seed}\n"
        file.with_suffix(".txt").write_text(
            f"{text}\n{outcome.details}", encoding="utf-8", errors="backslashreplace"
        )
        line = f"{file.name}: {outcome.reason}"
        self.findings.append(line)
        print(line, flush=True)

    def table(self) -> str:
        """A line for each target: its cases, and what became of them."""
        columns = ("cases", "ok", "refused", "finding")
        rows = [f"{'target':12}" + "".join(f"{column:>10}" for column in columns)]
        total: Counter[str] = Counter()
        for name, counts in self._counts.items():
            total += counts
            rows.append(f"{name:12}" + _numbers(counts, columns))
        rows.append(f"{'together':12}" + _numbers(total, columns))
        rows.append(f"different findings: {len(self.findings)}")
        return "\n".join(rows)


def _numbers(counts: Counter, columns: Sequence[str]) -> str:
    return "".join(f"{counts[column]:10}" for column in columns)


def replay(targets: Mapping[str, Target], file: Path, scratch: Path) -> Outcome:
    """Run the case of a file that a campaign has kept.

    Raises:
        LookupError: the file's name does not begin with that of a target.
    """
    name = file.name.partition("-")[0]
    if name not in targets:
        raise LookupError(f"{file.name} does not begin with the name of a target")
    worker = Worker(targets, scratch)
    try:
        return worker.run(Case(name, files=file.read_bytes()))
    finally:
        worker.stop()
