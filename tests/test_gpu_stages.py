"""Whole stages of the GPU's path without a GPU, by Triton's interpreter."""

import pytest

from .conftest import ROOT, shell

pytest.importorskip("triton")


@pytest.mark.parametrize("name", ["dispatch", "graphs", "stages", "ways"])
def test_interpreted(name):
    done = shell(
        *("-m", "pytest", ROOT / f"tests/interpreted_{name}.py"),
        TRITON_INTERPRET="1",
    )
    assert done.returncode == 0, done.stdout
