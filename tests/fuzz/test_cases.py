"""What the fuzzer has found and was mended stays mended.

``cases`` has an archive for each finding, named as the fuzzer names it: the target
first. ``python -m tests.fuzz --replay FILE`` shows more.
"""

from pathlib import Path

import pytest

from tests.fuzz import workers
from tests.fuzz.campaign import replay
from tests.fuzz.targets import ALL

CASES = sorted((Path(__file__).parent / "cases").glob("*.tar"))


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_case_is_accepted_or_refused(file, tmp_path):
    outcome = replay(ALL, file, tmp_path / "scratch")
    assert outcome.verdict in ("ok", "refused"), f"{outcome.reason}\n{outcome.details}"


def test_the_worker_forks():
    """Each case runs in a process of its own, or what it breaks stays broken."""
    assert CASES
    assert workers.CASES > 1
