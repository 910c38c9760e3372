"""Shared by all tests: where things are, and running a tool as the shell would."""

import contextlib
import faulthandler
import gc
import logging
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from mmengine.config import config
from mmengine.logging import MMLogger
from mmengine.utils import ManagerMixin
from yapf.yapflib import yapf_api

import convnext_dense  # noqa: F401  (before any test imports mmcv.ops)
from convnext_dense.reports.run.hook import RunReportHook

warnings.filterwarnings("ignore")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # real COCO and ADE20K samples, where they are


def unformatted(text, **style):
    """In place of yapf, which lays out a run's config four times, up to 1.5 s each.

    What is no Python is refused, as by yapf; processes of their own have yapf itself.
    """
    compile(text, "<config>", "exec")
    return text, True


for module in (yapf_api, config):  # the classic stack's has a name of its own for it
    module.FormatCode = unformatted


def pytest_collection_finish(session):
    """Leave what was imported out of Python's garbage collections: with it one takes
    0.4 s, and mmengine asks for one with every data set."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session):
    gc.unfreeze()  # else compiled libraries complain of what is left


@contextlib.contextmanager
def logged():
    """The messages that mmengine's current logger gets, as a list that grows."""
    messages, handler = [], logging.Handler(logging.INFO)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def forget_instances(kind):
    """Of mmengine's loggers, visualizers, ...: a new process has none."""
    kind._instance_dict.clear()
    for heir in kind.__subclasses__():
        forget_instances(heir)


class Outcome:
    """Exit code and output of a tool."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


def shell(*command, **environment):
    """Run a Python file or ``-c CODE`` in a process of its own, in the checkout."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.fixture
def tool(capfd, monkeypatch, tmp_path):
    """Run ``tools/NAME.py ARGS`` in an empty folder, in this process (imports once).

    Without InputError caught by the tool itself, an exception fails the test.
    """
    monkeypatch.chdir(tmp_path)

    def run(name, *args):
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        monkeypatch.syspath_prepend(str(ROOT / "tools"))
        monkeypatch.setattr(os, "environ", os.environ.copy())
        for switch in ("enable", "register"):  # pytest has its own
            monkeypatch.setattr(faulthandler, switch, lambda *_: None)
        capfd.readouterr()
        code = 0
        forget_instances(ManagerMixin)
        with contextlib.ExitStack() as stack:
            stack.callback(sys.modules.pop, "_command", None)
            try:
                runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
            except SystemExit as stop:
                code = stop.code or 0
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture(autouse=True)
def no_run_report(request, monkeypatch):
    """Trainings end without the page, which takes its time; test_run_report has it."""
    if not request.module.__name__.endswith("test_run_report"):
        monkeypatch.setattr(RunReportHook, "after_train", lambda *_: None)


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory):
    """A few pictures of the built-in data set, drawn once."""
    from convnext_dense.datasets import shapes

    root = tmp_path_factory.mktemp("data") / "shapes"
    shapes.draw(root, seed=1, counts={"train": 6, "val": 3})
    return root
