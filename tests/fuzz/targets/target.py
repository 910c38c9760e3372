"""What a target is."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from ..case import Files


class Target(NamedTuple):
    """A function of the package that reads what a user names.

    Attributes:
        name: of the target, in tables and in the names of findings.
        seeds: makes cases that must be accepted; called once, before the processes
            are forked.
        mutate: makes a case of one of the seeds.
        run: reads the files of a case in a folder. It returns, or raises an
            ``InputError``.
        changes: the files and folders that ``run`` may change, below the case's.
        share: of the time, relative to other targets.
        seconds: of CPU time for a small case.
        memory: in MB that a small case may take, beyond what the process has.
    """

    name: str
    seeds: Callable[[], list[Files]]
    mutate: Callable[[Files, Random], Files]
    run: Callable[[Path], None]
    changes: tuple[str, ...] = ()
    share: float = 1
    seconds: float = 10
    memory: float = 400

    def case(self, number: int, seed: int) -> Files:
        """Case ``number`` of a campaign with ``seed``, the same on every machine."""
        rng = Random(f"{seed} {self.name} {number}")
        files = rng.choice(self.seeds())
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
            # A mutation may be unable to read what the one before has made.
            with contextlib.suppress(Exception):
                files = self.mutate(files, rng)
        return files
