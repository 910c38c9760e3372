"""Files are written whole; what killed processes leave is removed, and nothing else."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convnext_dense.errors import InputError
from convnext_dense.utils import files, locks, partials

OTHER = "0badcafe"  # a machine's number
NAME = f".convnext_dense-partial-{partials._machine()}-01234567"


@pytest.fixture(autouse=True)
def nothing_cleaned(monkeypatch):
    monkeypatch.setattr(partials, "_cleaned", set())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def in_fork(work):
    """Call ``work`` in a forked process; its exit code, or minus its signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in(context, path):
    def write():
        with context(path) as partial:
            partial.write_text("half")
            die()

    assert in_fork(write) == -signal.SIGKILL


@pytest.mark.parametrize("context", [files.whole, files.whole_with_others])
def test_the_next_file_removes_what_a_killed_process_left(context, tmp_path):
    killed_in(context, tmp_path / "a.onnx")
    (left,) = names(tmp_path)
    assert left.startswith(".convnext_dense-partial-")
    with files.whole(tmp_path / "b.txt") as partial:
        partial.write_text("b")
    assert names(tmp_path) == ["b.txt"]


@pytest.mark.parametrize("context", [files.whole, files.whole_with_others])
def test_partial_files_of_living_processes_stay(context, tmp_path):
    with context(tmp_path / "a.txt") as partial:
        partial.write_text("a")
        assert in_fork(lambda: partials.remove_left(tmp_path)) == 0
        partials.remove_left(tmp_path)
        assert partial.read_text() == "a"
    assert names(tmp_path) == ["a.txt"]


def test_a_living_worker_does_not_keep_a_killed_process_s_file(tmp_path):
    """Data-loader workers inherit descriptors, and may outlive a killed process."""
    worker = tmp_path / "worker"

    def write():
        with files.whole(tmp_path / "a.txt") as partial:
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            worker.write_text(str(child))
            partial.write_text("half")
            die()

    assert in_fork(write) == -signal.SIGKILL
    try:
        assert len(names(tmp_path)) == 2
        deadline = time.time() + 5  # the worker closes its copy when it runs
        while len(names(tmp_path)) == 2 and time.time() < deadline:
            partials.remove_left(tmp_path)
        assert names(tmp_path) == ["worker"]
    finally:
        os.kill(int(worker.read_text()), signal.SIGKILL)


def test_a_process_forked_inside_removes_nothing(tmp_path):
    with files.whole(tmp_path / "a.txt") as partial:
        partial.write_text("a")

        def fail():
            raise SystemExit

        context = files.whole(tmp_path / "b.txt")
        inner = context.__enter__()
        inner.write_text("b")
        in_fork(lambda: context.__exit__(SystemExit, SystemExit(), None))
        assert inner.read_text() == "b"
        context.__exit__(None, None, None)
    assert names(tmp_path) == ["a.txt", "b.txt"]


def aged(path, days):
    path.write_text("")
    then = time.time() - days * 24 * 3600
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize(
    ("name", "days", "stays"),
    [
        (NAME, 0, False),
        (f"{NAME}.pth", 0, False),
        (f"{NAME}.a\nb", 0, False),
        (NAME.replace(partials._machine(), OTHER), 0.9, True),
        (NAME.replace(partials._machine(), OTHER), 1.1, False),
        (NAME.replace(partials._machine(), OTHER), -400, True),  # a clock is wrong
        # Users' own files.
        (".123.photo.jpg", 400, True),
        (".5.5.yaml", 400, True),
        (".999999999.epoch_1.pth", 400, True),
        (".convnext_dense-partial", 400, True),
        (f"{NAME}x", 400, True),
        (f"{NAME}-mine.pth", 400, True),
        (NAME[1:], 400, True),
        (NAME.upper(), 400, True),
        (".nfs000000000123456700000001", 400, True),
    ],
)
def test_which_files_are_removed(name, days, stays, tmp_path):
    path = aged(tmp_path / name, days)
    partials.remove_left(tmp_path)
    assert path.exists() == stays


def test_links_and_pipes_stay(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / "run" / NAME.replace("01234567", "76543210"))
    folder = tmp_path / "run" / NAME.replace("01234567", "00000000")
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "mine")
    partials.remove_left(tmp_path / "run")
    assert len(names(tmp_path / "run")) == 2
    assert (tmp_path / "mine/a.txt").read_text() == "mine"


def test_a_link_at_the_partial_file_s_name_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(partials.secrets, "token_hex", lambda _: "01234567")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f"{NAME}.txt").symlink_to("mine")
    with (
        pytest.raises(InputError, match="could not be written: File exists"),
        files.whole(tmp_path / "a.txt") as partial,
    ):
        partial.write_text("not mine")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "a.txt").exists()


def test_without_locks_the_age_tells(tmp_path, monkeypatch):
    """Some network file systems have no locks."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with files.whole(tmp_path / "a.txt") as partial:
        partial.write_text("a")
        partials.remove_left(tmp_path)
        assert partial.exists()
        aged(partial, 1.1)
        partials.remove_left(tmp_path)
        assert not partial.exists()
        partial.write_text("a")
    assert names(tmp_path) == ["a.txt"]


FAULTS = [
    ("rename", errno.ESTALE),
    ("rename", errno.EXDEV),
    ("rename", errno.EBUSY),
    ("rename", errno.EROFS),
    ("fsync", errno.EIO),
    ("fsync", errno.ENOSPC),
    ("fsync", errno.EDQUOT),
    ("fsync", errno.ESTALE),
    ("open", errno.EROFS),
    ("open", errno.ESTALE),
    ("open", errno.EMFILE),
]


@pytest.mark.parametrize("context", [files.whole, files.whole_with_others])
@pytest.mark.parametrize(("call", "number"), FAULTS)
def test_a_fault_of_the_file_system(context, call, number, tmp_path, monkeypatch):
    """A message names the file; an older file is unchanged, and nothing is left."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    if call == "open":
        monkeypatch.setattr(partials.os, "open", fail)
    elif call == "rename":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError) as error, context(path) as partial:
        partial.write_text("new")
    assert str(error.value) == f"{path} could not be written: {os.strerror(number)}"
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_fsync(number, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with files.whole(tmp_path / "a.txt") as partial:
        partial.write_text("a")
    assert (tmp_path / "a.txt").read_text() == "a"


def test_a_rename_whose_answer_was_lost(tmp_path, monkeypatch):
    """NFS repeats it, and then the partial file is not there any more."""
    replace = Path.replace

    def twice(self, target):
        replace(self, target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", twice)
    with files.whole(tmp_path / "a.txt") as partial:
        partial.write_text("a")
    assert names(tmp_path) == ["a.txt"]
    with (
        pytest.raises(InputError, match="No such file"),
        files.whole(tmp_path / "a.txt") as partial,
    ):
        partial.rename(tmp_path / "b.txt")
    assert (tmp_path / "a.txt").read_text() == "a"


def test_a_folder_that_is_deleted_meanwhile(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    with (
        pytest.raises(InputError, match=r"a\.txt could not be written: No such file"),
        files.whole(folder / "a.txt") as partial,
    ):
        shutil.rmtree(partial.parent)


def test_a_library_that_writes_nothing_without_an_error(tmp_path):
    (tmp_path / "a.png").write_text("old")
    with (
        pytest.raises(InputError, match=r"a\.png could not be written: nothing was"),
        files.whole(tmp_path / "a.png"),
    ):
        pass  # as cv2.imwrite may
    assert (tmp_path / "a.png").read_text() == "old"


def test_a_long_name_fits(tmp_path):
    path = tmp_path / ("a" * 251 + ".txt")
    with files.whole(path) as partial:
        partial.write_text("a")
    assert path.read_text() == "a"


def test_the_lock_is_not_inherited_by_programs(tmp_path):
    """A program that the process starts must not keep the lock either."""
    with files.whole(tmp_path / "a.txt") as partial:
        partial.write_text("a")
        listing = (
            "import os; print(*map(os.path.realpath, os.scandir('/proc/self/fd')))"
        )
        done = subprocess.run(
            [sys.executable, "-c", listing],
            capture_output=True,
            text=True,
            check=True,
            close_fds=False,
        )
        assert partial.name not in done.stdout
