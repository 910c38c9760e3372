"""What the fuzzer has found and was mended stays mended.

``cases`` has an archive for each finding, named as the fuzzer names it: the target
first. ``python -m tests.fuzz --replay FILE`` shows more.
"""

import functools
from pathlib import Path

import pytest

from . import workers
from .campaign import replay
from .targets import ALL

CASES = sorted((Path(__file__).parent / "cases").glob("*.tar"))


@functools.cache
def warmed_up(name):
    """Import what a target imports late, which a case must not."""
    workers.warm_up({name: ALL[name]})


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_case_is_accepted_or_refused(file, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "IDLE", 3)
    warmed_up(file.name.partition("-")[0])
    outcome = replay(ALL, file, tmp_path / "scratch")
    assert outcome.verdict in ("ok", "refused"), f"{outcome.reason}\n{outcome.details}"


def test_there_are_cases():
    assert CASES
