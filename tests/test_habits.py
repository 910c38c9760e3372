"""Checks of habits: imports between tests, docstrings, examples in docstrings."""

import ast
import doctest
import importlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers.paths import ROOT

TESTS = sorted((ROOT / "tests").rglob("*.py"))
MODULES = sorted((ROOT / "convnext_dense").rglob("*.py"))
WITH_EXAMPLES = [file for file in MODULES if ">>> " in file.read_text()]


def short(file: Path) -> str:
    """The path of a file below the checkout, as the name of a test."""
    return str(file.relative_to(ROOT))


def imported_names(file: Path) -> set[str]:
    """The last words of all modules and names that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.rpartition(".")[2] for name in names}


@pytest.mark.parametrize("file", TESTS, ids=short)
def test_no_file_imports_a_test_file(file):
    """What several tests need lies in tests/helpers."""
    test_files = {path.stem for path in TESTS if path.stem.startswith("test_")}
    assert not imported_names(file) & (test_files | {"conftest"})


Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public_parts(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple]:
    """(name, node) of public classes, functions and methods, not of nested ones."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from public_parts([*node.body, *node.orelse], prefix)
        if not isinstance(node, Documented) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
        if f"{node.name}.setter" in decorators or "overload" in decorators:
            continue  # the getter, or the implementation, has the docstring
        yield f"{prefix}{node.name}", node
        if isinstance(node, ast.ClassDef):
            yield from public_parts(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("file", MODULES, ids=short)
def test_public_names_have_docstrings(file):
    """A module's docstring begins with a sentence."""
    tree = ast.parse(file.read_text())
    text = ast.get_docstring(tree)
    assert text, "the module has no docstring"
    first_paragraph = text.partition("\n\n")[0]
    assert first_paragraph.endswith("."), first_paragraph
    missing = [
        f"{name} (line {node.lineno})"
        for name, node in public_parts(tree.body)
        if not ast.get_docstring(node)
    ]
    assert not missing, f"no docstring: {', '.join(missing)}"


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=short)
def test_examples_in_docstrings(file, tmp_path, monkeypatch):
    """The examples run, in an empty folder, and print what they say."""
    monkeypatch.chdir(tmp_path)
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    module = importlib.import_module(name.removesuffix(".__init__"))
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    # logging.disable would leave mmengine's loggers silent in the tests that follow:
    # each remembers which levels are off.
    monkeypatch.setattr(logging.Logger, "handle", lambda *_: None)
    results = doctest.testmod(module, optionflags=flags)
    assert results.attempted
    assert not results.failed
