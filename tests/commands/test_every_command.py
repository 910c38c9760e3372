"""What every command has. A new one is tested here without being listed."""

import argparse
import importlib
import inspect
import runpy

import pytest

from convnext_dense import commands

from ..helpers.paths import ROOT
from ..helpers.running import shell

COMMANDS = commands.names()


def load(command: str):
    return importlib.import_module(f"convnext_dense.commands.{command}")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_a_docstring_and_two_functions(command):
    module = load(command)
    title, *_ = (module.__doc__ or "").splitlines()
    assert title.endswith("."), "the first line of --help is a sentence"
    example = f"convnext-dense {command.replace('_', '-')}"
    assert example in module.__doc__, "--help has no example"
    assert list(inspect.signature(module.add_arguments).parameters) == ["parser"]
    assert list(inspect.signature(module.main).parameters) == ["args"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_has_a_help_text(command):
    parser = argparse.ArgumentParser()
    load(command).add_arguments(parser)
    for action in parser._actions:
        assert action.help, action.option_strings or action.dest
    assert parser.format_help()  # fails at a % that is not escaped


def test_help_needs_no_torch():
    """Else it takes seconds, and the doctor could not start without torch."""
    code = f"""
import sys
sys.path.insert(0, "tools")
import _command

for name in {COMMANDS}:
    sys.argv = [name, "--help"]
    try:
        _command.run(name)
    except SystemExit as stop:
        assert stop.code == 0, name
    slow = {{"torch", "mmengine", "numpy"}} & set(sys.modules)
    assert not slow, (name, slow)
"""
    done = shell("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: ") == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_a_script_that_only_runs_it(command, monkeypatch):
    called = []
    monkeypatch.setattr(commands, "run", called.append)
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    runpy.run_path(str(ROOT / f"tools/{command}.py"), run_name="__main__")
    assert called == [command]


def test_every_script_runs_a_command():
    scripts = {file.stem for file in (ROOT / "tools").glob("[!_]*.py")}
    assert scripts == set(COMMANDS)
