"""One training uses a work dir at a time; a run that fails removes only its own."""

import errno
import os
import re
import signal
import time
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.utils import ManagerMixin

from convnext_dense.config.options import load_config
from convnext_dense.engine import attempt, work_dir_lock
from convnext_dense.engine.runner import run
from convnext_dense.errors import InputError
from convnext_dense.utils import locks

from ..helpers import small_runs
from ..helpers.mmengine_state import forget_instances
from ..helpers.runs import SEG

FILE = work_dir_lock.FILE
IN_USE = r"another training uses the work dir .*: process (\d+) on \S+ since \d{4}-"


@pytest.fixture
def holder(tmp_path):
    """Starts a process that locks ``tmp_path/run``, with a worker; ends it at last."""
    started = []

    def start():
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            with work_dir_lock.locked(tmp_path / "run"):
                if os.fork() == 0:  # a data-loader worker, which inherits it
                    time.sleep(60)
                    os._exit(0)
                os.write(writing, b"1")
                time.sleep(60)
            os._exit(0)
        started.append(child)
        assert os.read(reading, 1) == b"1"
        os.close(reading)
        os.close(writing)
        return child

    yield start
    for child in started:
        os.killpg(child, signal.SIGKILL)


def try_to_lock(work_dir):
    with work_dir_lock.locked(work_dir):
        pass


def test_a_second_run_and_one_after_a_kill(holder, tmp_path):
    run_dir = tmp_path / "run"
    child = holder()
    with pytest.raises(InputError, match=IN_USE) as error:
        try_to_lock(run_dir)
    assert int(re.search(IN_USE, str(error.value))[1]) == child
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    # Its worker lives, and has closed its copy of the descriptor.
    assert (run_dir / FILE).exists()
    try_to_lock(run_dir)
    assert list(run_dir.iterdir()) == []


def test_a_worker_that_ends_releases_nothing(tmp_path):
    with work_dir_lock.locked(tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(InputError, match="another training uses"):
            try_to_lock(tmp_path)
        with pytest.raises(InputError, match="another training uses"):
            try_to_lock(tmp_path)  # the first failure released nothing either
    try_to_lock(tmp_path)


def test_only_rank_0_holds_it(tmp_path, monkeypatch):
    monkeypatch.setattr("convnext_dense.utils.distributed.is_main_process", bool)
    with work_dir_lock.locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_removed_meanwhile(tmp_path):
    """The second lock is not that of the first run, which must not remove it."""
    with work_dir_lock.locked(tmp_path / "run"):
        (tmp_path / "run" / FILE).unlink()
        with work_dir_lock.locked(tmp_path / "run"):
            pass
        second = work_dir_lock.locked(tmp_path / "run")
        second.__enter__()
    assert (tmp_path / "run" / FILE).exists()
    second.__exit__(None, None, None)
    with work_dir_lock.locked(tmp_path / "run"):
        (tmp_path / "run" / FILE).unlink()
        (tmp_path / "run").rmdir()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ends_between_opening_and_locking(tmp_path, monkeypatch):
    """The lock of a file that is not there any more keeps nobody out."""
    path, take = tmp_path / FILE, locks.take

    def take_late(handle):
        monkeypatch.setattr(locks, "take", take)
        path.unlink()
        return take(handle)

    monkeypatch.setattr(locks, "take", take_late)
    with (
        work_dir_lock.locked(tmp_path),
        pytest.raises(InputError, match="another training uses"),
    ):
        try_to_lock(tmp_path)


@pytest.mark.parametrize("what", ["link", "hard link", "file", "folder", "pipe", "end"])
def test_something_else_at_the_lock_s_name(what, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("convnext_dense: mine" if what == "hard link" else "mine")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    path = run_dir / FILE
    match what:
        case "link":
            path.symlink_to(mine)
        case "end":
            path.symlink_to(tmp_path / "nothing")
        case "hard link":
            path.hardlink_to(mine)
        case "file":
            path.write_text("mine")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    with pytest.raises(InputError, match=r"lock is not the file with which .* rename"):
        try_to_lock(run_dir)
    assert mine.read_text().endswith("mine")
    assert not (tmp_path / "nothing").exists()
    assert os.path.lexists(path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks(number, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    lines = []
    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    monkeypatch.setattr(work_dir_lock, "print_log", lambda line, _: lines.append(line))
    with work_dir_lock.locked(tmp_path):
        try_to_lock(tmp_path)
    assert len(lines) == 2
    assert "has no locks" in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_platform_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    try_to_lock(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_stranger_wrote_into_the_lock(tmp_path):
    with work_dir_lock.locked(tmp_path):
        (tmp_path / FILE).write_bytes(b"convnext_dense: \x1b[2J\xff" + b"x" * 5000)
        with pytest.raises(InputError) as error:
            try_to_lock(tmp_path)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 600


# Runs


@pytest.fixture
def config(tmp_path, shapes_root):
    forget_instances(ManagerMixin)
    options = ["train_cfg.max_iters=2", "train_cfg.val_interval=2"]
    cfg = small_runs.small("iterations", tmp_path / "run", shapes_root, options=options)
    cfg.default_hooks.checkpoint.interval = 1
    return cfg


def everything(folder):
    return {p: p.is_file() and p.read_bytes() for p in Path(folder).rglob("*")}


def test_a_second_training_changes_nothing(config, holder, tmp_path):
    holder()
    (tmp_path / "run/iter_1.pth").write_text("a checkpoint")
    before = everything(tmp_path)
    with pytest.raises(InputError, match=IN_USE):
        run(config, "train")
    assert everything(tmp_path) == before


class Meanwhile(Hook):
    """Does something when the run is built, and then lets it fail."""

    def __init__(self, work):
        self.work = work

    def before_run(self, runner):
        self.work()
        raise InputError("on purpose")


@pytest.mark.parametrize("mode", ["train", "val", "test"])
def test_what_others_wrote_meanwhile_stays(mode, config, tmp_path):
    """A training of the same work dir writes a checkpoint while a test begins."""

    def write():
        for name in ("iter_1.pth", "20000101_000000/a.log", "mine/a.txt"):
            (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "run" / name).write_text(name)
        (tmp_path / "run/20000101_000001").mkdir()

    with pytest.raises(InputError, match="on purpose"):
        run(config, mode, hooks=[Meanwhile(write)])
    names = [str(p.relative_to(tmp_path / "run")) for p in everything(tmp_path / "run")]
    assert sorted(names) == [
        *("20000101_000000", "20000101_000000/a.log"),
        *("iter_1.pth", "mine", "mine/a.txt"),
    ]


@pytest.mark.parametrize("mode", ["train", "test"])
def test_runs_beside_it_stay(mode, config, tmp_path):
    """Both runs create the folder of their work dirs."""
    config.work_dir = str(tmp_path / "work_dirs/a")
    beside = tmp_path / "work_dirs/b"
    with pytest.raises(InputError, match="on purpose"):
        run(config, mode, hooks=[Meanwhile(beside.mkdir)])
    assert beside.exists()
    assert not Path(config.work_dir).exists()


def test_a_training_s_config_stays_when_a_test_fails(config, holder, tmp_path):
    """mmengine writes it into the work dir when either begins."""
    config = load_config(str(SEG), [], str(tmp_path / "run"))
    holder()
    with pytest.raises(InputError, match="on purpose"):
        run(config, "test", hooks=[Meanwhile(lambda: None)])
    assert [p.name for p in (tmp_path / "run").iterdir() if p.name != FILE] == [
        SEG.name
    ]


class Break(Hook):
    """Breaks something in the second iteration."""

    def __init__(self, work):
        self.work = work

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1:
            self.work()


def test_a_work_dir_that_becomes_a_file(config, tmp_path):
    def replace():
        (tmp_path / "run").rename(tmp_path / "moved")
        (tmp_path / "run").write_text("mine")

    with pytest.raises(InputError, match=r"could not be written: .*") as error:
        small_runs.train(config, hooks=[Break(replace)])
    assert "--resume" in str(error.value)
    assert (tmp_path / "run").read_text() == "mine"
    assert (tmp_path / "moved/iter_1.pth").exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.ESTALE, errno.EIO])
def test_a_work_dir_that_cannot_be_written_any_more(
    number, config, tmp_path, monkeypatch
):
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if str(path).startswith(str(tmp_path / "run")) and flags & os.O_CREAT:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *args, **kwargs)

    def remount():
        monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(InputError, match=r"iter_2\.pth could not be written: "):
        small_runs.train(config, hooks=[Break(remount)])
    monkeypatch.undo()
    assert (tmp_path / "run/iter_1.pth").exists()
    forget_instances(ManagerMixin)
    assert small_runs.train(config, resume=True).iter == 2


def test_log_folders_get_names_of_their_own(tmp_path, monkeypatch):
    """mmengine names them by local time, which an hour may have twice."""
    now = time.time()
    for second in (0, 1, 2):
        name = time.strftime("%Y%m%d_%H%M%S", time.localtime(now + second))
        (tmp_path / name).mkdir()
    slept = []
    monkeypatch.setattr(attempt.time, "time", lambda: now + sum(slept))
    monkeypatch.setattr(attempt.time, "sleep", lambda s: slept.append(s * 10))
    attempt.wait_for_free_name(tmp_path)
    assert 2 <= sum(slept) < 4
