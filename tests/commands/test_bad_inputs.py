"""Bad inputs: one message and an exit code, no Python stack, no file lost or changed.

tests/bad_inputs has the table.
"""

import hashlib
import os
import shutil
import tempfile
from multiprocessing import current_process

import pytest
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, TestLoop

from ..bad_inputs import AREAS, markdown
from ..bad_inputs.weights import small_config
from ..helpers.paths import ROOT
from ..helpers.runs import NOTHING_SAVED, options

CASES = [
    pytest.param(case, id=f"{case.tool}: {case.mistake}")
    for cases in AREAS.values()
    for case in cases
]


def look(folder):
    """Path -> permissions and digest of everything in a folder."""
    contents = {}
    for path in folder.rglob("*"):
        readable = path.is_file() and os.access(path, os.R_OK)
        content = path.read_bytes() if readable else b""
        name = str(path.relative_to(folder))
        contents[name] = path.lstat().st_mode, hashlib.sha256(content).hexdigest()
    return contents


@pytest.fixture
def no_work(monkeypatch):
    """Let a run that starts in spite of a mistake fail at once."""

    def began(loop):
        raise RuntimeError("the run has begun")

    for loop in (EpochBasedTrainLoop, IterBasedTrainLoop, TestLoop):
        monkeypatch.setattr(loop, "run", began)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("case", CASES)
def test_bad_input(tool, tmp_path, shapes_root, monkeypatch, case):
    if case.not_root and os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    shutil.copytree(shapes_root, tmp_path / "data/shapes")
    arguments = case.arguments(tmp_path)
    for name, value in case.environment(tmp_path).items():
        os.makedirs(value)
        monkeypatch.setenv(name, value)
        monkeypatch.setattr(tempfile, "tempdir", None)  # it reads TMPDIR again
        monkeypatch.setitem(current_process()._config, "tempdir", None)
    before = look(tmp_path)
    done = tool(case.tool, *arguments)
    assert "Traceback" not in done.out + done.err
    assert case.is_said_in(done.out + done.err), done.out + done.err
    assert done.code == case.code
    if case.code == 2:
        assert done.err.count("error:") == 1, done.err
    after = look(tmp_path)
    assert {name: after.get(name) for name in before} == before
    new = {name.split("/")[0] for name in after.keys() - before.keys()}
    assert new <= set(case.leaves)


def test_the_table_is_the_documented_one():
    """After a change: make errors."""
    written = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    assert written == markdown()


def test_every_tool_is_in_the_table_or_has_its_own_test_file():
    tools = {path.stem for path in (ROOT / "tools").glob("[!_]*.py")}
    in_table = {case.values[0].tool for case in CASES}
    files = (ROOT / "tests/commands").glob("test_*.py")
    own_tests = {path.stem.removeprefix("test_") for path in files}
    assert in_table <= tools
    assert tools - in_table <= own_tests


def test_a_run_trains_on_read_only_data(tool, tmp_path, shapes_root):
    shutil.copytree(shapes_root, tmp_path / "data/shapes")
    paths = list((tmp_path / "data").rglob("*"))
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = look(tmp_path / "data")
    done = tool(
        *("train", small_config(tmp_path, "seg"), "--work-dir", "run"),
        *options("train_cfg.max_iters=1", "train_cfg.val_interval=1", *NOTHING_SAVED),
        *("train_dataloader.batch_size=2", "val_dataloader.dataset.indices=1"),
    )
    assert done.code == 0
    assert "mIoU" in done.out
    assert look(tmp_path / "data") == before
    for path in paths:
        path.chmod(0o755)  # so that pytest can remove it
