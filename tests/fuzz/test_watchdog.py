"""The fuzzer can fail: it finds each kind of misbehaviour that is planted."""

import faulthandler
import importlib
import os
import pickle
import random
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from convnext_dense.errors import InputError

from . import case, workers
from .campaign import Campaign, replay
from .targets.target import Target

FILES = {"a": b"x" * 100}
SECONDS, MEMORY = 1, 100  # of the planted targets


def raises(error):
    """A function of a folder that raises ``error``."""

    def run(folder):
        raise error

    return run


def without_memory(folder):
    try:
        torch.empty(10**14)
    except RuntimeError as error:
        raise InputError("damaged") from error


def without_memory_in_python(folder):
    try:
        bytearray(10**13)
    except MemoryError as error:
        raise InputError("damaged") from error


def quietly(folder):
    """Start a program where any exception is expected."""
    try:
        os.system("true")
    except Exception:
        return


def spins(folder):
    while True:
        pass


PLANTED = {
    "a file was opened": lambda folder: Path("written").write_text("x"),
    "os.mkdir": lambda folder: os.mkdir(folder / "../../made"),
    "os.symlink": lambda folder: os.symlink("/", folder / "../link"),
    "os.rename": lambda folder: os.rename(folder / "a", folder / "../a"),
    "shutil.rmtree": lambda folder: shutil.rmtree(folder.parent / "canaries"),
    # Code in C tells nobody.
    "files were written": lambda folder: cv2.imwrite("x.png", np.zeros((2, 2))),
    "files were written, changed": lambda folder: (folder / "a").write_text("x"),
    "more than": spins,
    "it waits": lambda folder: threading.Event().wait(),
    "os.system": quietly,
    "subprocess.Popen": lambda folder: subprocess.run(["true"], check=False),
    "os.fork": lambda folder: os.fork(),
    "socket.": lambda folder: socket.create_connection(("127.0.0.1", 9)),
    "exec of": lambda folder: exec("a = 1", {}),
    "the module": lambda folder: importlib.import_module("antigravity"),
    "the pickle": lambda folder: pickle.loads(b"cos\nsystem\n."),
    "ctypes": lambda folder: importlib.import_module("ctypes").CDLL("libm.so.6"),
    "the process died: SIGSEGV": lambda folder: faulthandler._sigsegv(),
    "the process died: exit code": lambda folder: os._exit(3),
    "altered: type HistoryBuffer.mean": lambda f: setattr(HistoryBuffer, "mean", 1),
    # Far more than the limit: the process may give memory back meanwhile.
    "MB of memory": lambda folder: bytearray(600 * 2**20),
    'more memory than there is: "[': without_memory,
    "more memory than there is: ''": without_memory_in_python,
    "ValueError": raises(ValueError("x")),
    "SystemExit": raises(SystemExit(1)),
    "a message of": raises(InputError("x\n" * 9000)),
}


def target(run, changes=()):
    """A target whose cases all have ``FILES``."""
    return Target(
        "planted",
        lambda: [FILES],
        lambda files, rng: {"a": rng.randbytes(8)},
        run,
        changes,
        seconds=SECONDS,
        memory=MEMORY,
    )


@pytest.fixture
def outcome(tmp_path, monkeypatch):
    """What a worker says of a function that gets ``FILES``."""
    monkeypatch.setattr(workers, "IDLE", 1)
    started = []

    def run(function, changes=()):
        targets = {"planted": target(function, changes)}
        started.append(workers.Worker(targets, tmp_path / "scratch"))
        return started[-1].run(workers.Case("planted", files=case.archive(FILES)))

    yield run
    for worker in started:
        worker.stop()


@pytest.mark.parametrize("expected", PLANTED)
def test_planted_misbehaviour_is_a_finding(outcome, expected):
    result = outcome(PLANTED[expected])
    assert result.verdict == "finding"
    assert expected in result.reason


def test_what_behaves_is_no_finding(outcome):
    assert outcome(lambda folder: (folder / "a").read_bytes()).verdict == "ok"
    assert outcome(raises(InputError("it is damaged"))).verdict == "refused"
    written = outcome(lambda folder: (folder / "out").write_text("x"), ("out",))
    assert written.verdict == "ok"


def test_the_next_case_gets_a_new_process(outcome, tmp_path):
    def alter(folder):
        HistoryBuffer.mean = None

    assert outcome(alter).verdict == "finding"
    assert outcome(lambda folder: HistoryBuffer.mean.__name__).verdict == "ok"


def test_a_campaign_keeps_what_it_finds(tmp_path, capsys):
    """One file for each cause, which runs again; the same cases for the same seed."""

    def run(folder):
        content = (folder / "a").read_bytes()
        if content[0] > 200:
            raise KeyError(content[0])

    def run_campaign(name):
        folder = tmp_path / name
        campaign = Campaign(targets, 5, folder, tmp_path / "scratch")
        campaign.run(60, cases=30)
        assert "30" in campaign.table()
        return sorted(path.name for path in folder.glob("*.tar"))

    targets = {"planted": target(run)}
    first = run_campaign("first")
    assert len(first) == 1
    assert first == run_campaign("second")
    again = replay(targets, tmp_path / "first" / first[0], tmp_path / "scratch")
    assert again.verdict == "finding"
    assert "KeyError" in again.reason
    assert "KeyError" in capsys.readouterr().out


def test_cases_survive_their_archive(tmp_path):
    files = {"a/b": b"1", "link": case.Link("a/b"), "pipe": case.Pipe(), "e": b""}
    assert case.unarchive(case.archive(files)) == files
    case.write({**files, "../outside": b"x", "n" * 300: b"x"}, tmp_path / "case")
    names = sorted(path.name for path in tmp_path.rglob("*"))
    assert names == ["a", "b", "case", "e", "link", "pipe"]


@pytest.mark.parametrize("number", range(3))
def test_cases_follow_from_seed_and_number(number):
    from .targets import ALL

    random.seed(number)  # which must not matter
    for name, each in ALL.items():
        if name == "resume":  # its seed is a run
            continue
        assert each.case(number, 1) == each.case(number, 1), name
