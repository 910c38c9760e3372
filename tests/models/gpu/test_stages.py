"""Whole stages without a GPU, by Triton's interpreter."""

import pytest

from ...helpers.paths import ROOT
from ...helpers.running import shell

pytest.importorskip("triton")


@pytest.mark.parametrize("names", [["stages"], ["dispatch", "graphs", "ways"]], ids=str)
def test_interpreted(names):
    files = [ROOT / f"tests/models/gpu/interpreted_{name}.py" for name in names]
    done = shell("-m", "pytest", *files, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout
