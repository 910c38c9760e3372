"""Whole stages of the GPU's path without a GPU, by Triton's interpreter."""

import pytest

from .conftest import ROOT, shell

pytest.importorskip("triton")


def test_stages_interpreted():
    done = shell(
        *("-m", "pytest", ROOT / "tests/interpreted_stages.py"),
        TRITON_INTERPRET="1",
    )
    assert done.returncode == 0, done.stdout
