"""Habits that a machine can check: where tests import from."""

import ast
from pathlib import Path

import pytest

from .helpers.paths import ROOT

TESTS = sorted((ROOT / "tests").rglob("*.py"))


def imported_names(file: Path) -> set[str]:
    """The last words of all modules and names that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.rpartition(".")[2] for name in names}


@pytest.mark.parametrize("file", TESTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_imports_a_test_file(file):
    """What several tests need lies in tests/helpers."""
    files = {path.stem for path in TESTS if path.stem.startswith("test_")}
    assert not imported_names(file) & (files | {"conftest"})
