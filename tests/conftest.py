"""Fixtures and hooks of all tests."""

import contextlib
import faulthandler
import gc
import os
import random
import runpy
import sys
import warnings

import numpy as np
import pytest
import torch
from mmengine.utils import ManagerMixin

import convnext_dense  # noqa: F401  (before any test imports mmcv.ops)
from convnext_dense.reports.run.hook import RunReportHook

from .helpers.mmengine_state import dump_configs_without_yapf, forget_instances
from .helpers.paths import ROOT
from .helpers.running import Outcome

warnings.filterwarnings("ignore")
dump_configs_without_yapf()


def pytest_collection_finish(session):
    """Leave what was imported out of Python's garbage collections: with it one takes
    0.4 s, and mmengine asks for one with every data set."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Draw the same numbers whichever tests ran before: the fixtures', too."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (mmengine and the toolboxes use it)
    torch.manual_seed(0)


def pytest_sessionfinish(session):
    gc.unfreeze()  # else compiled libraries complain of what is left


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
