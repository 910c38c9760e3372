"""A run's checkpoints: whole, kept until the next is there, the last good one found."""

import os
import resource
import shutil

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import find_latest_checkpoint
from mmengine.runner.checkpoint import save_checkpoint
from mmengine.utils import ManagerMixin

from convnext_dense.errors import InputError
from convnext_dense.utils import files

from ..helpers import small_runs
from ..helpers.mmengine_state import forget_instances, logged


def checkpoint(file, iteration, at=None, **more):
    """Of a run, written ``at`` seconds."""
    content = dict(
        state_dict=dict(weight=torch.rand(5000)),
        optimizer={},
        meta=dict(iter=iteration),
        **more,
    )
    save_checkpoint(content, str(file))
    os.utime(file, (at or iteration,) * 2)
    return file


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints, the third the last, and one of weights alone after it."""
    for number in (1, 2, 3):
        last = checkpoint(tmp_path / f"epoch_{number}.pth", 10 * number)
    (tmp_path / "last_checkpoint").write_text(str(last))
    torch.save(dict(state_dict={}, meta=dict(iter=99)), tmp_path / "best_x.pth")
    return tmp_path


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "a flipped bit": flip,
    "cut short": lambda f: os.truncate(f, f.stat().st_size - 100),
    "empty": lambda f: os.truncate(f, 0),
    "zeros": lambda f: f.write_bytes(bytes(f.stat().st_size)),
    "text": lambda f: f.write_text("nothing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_last_good_one(folder, damage):
    DAMAGES[damage](folder / "epoch_3.pth")
    with logged() as messages:
        assert find_latest_checkpoint(str(folder)) == str(folder / "epoch_2.pth")
    assert any(
        m.startswith(f"skipped: {folder / 'epoch_3.pth'} is damaged") for m in messages
    )
    assert f"the run goes on from {folder / 'epoch_2.pth'}" in messages


def latest(folder):
    path = find_latest_checkpoint(str(folder))
    return path and os.path.basename(path)


def test_the_clock_was_put_back(folder):
    """epoch_3.pth was written last, and its time is before that of the others."""
    os.utime(folder / "epoch_3.pth", (1, 1))
    assert latest(folder) == "epoch_3.pth"


def test_which_is_the_last(folder):
    assert latest(folder) == "epoch_3.pth"
    # Killed before its name was written down.
    checkpoint(folder / "epoch_4.pth", 40)
    assert latest(folder) == "epoch_4.pth"
    assert (folder / "last_checkpoint").read_text() == str(folder / "epoch_4.pth")
    # Of an older run in the same folder, from a copy that has lost its times.
    checkpoint(folder / "epoch_0.pth", 5, at=100)
    assert latest(folder) == "epoch_4.pth"
    checkpoint(folder / "epoch_9.pth", 90, at=1)
    assert latest(folder) == "epoch_4.pth"
    # Left by a process that was killed in the middle.
    shutil.copy(folder / "epoch_4.pth", folder / ".123.epoch_5.pth")
    assert latest(folder) == "epoch_4.pth"


@pytest.mark.parametrize("name", ["", "epoch_7.pth", "\0", None])
def test_a_lost_name(folder, name):
    if name is None:
        (folder / "last_checkpoint").unlink()
    else:
        (folder / "last_checkpoint").write_text(name)
    assert latest(folder) == "epoch_3.pth"


def test_a_folder_that_was_moved(folder, tmp_path):
    moved = shutil.move(folder, tmp_path.parent / f"{tmp_path.name}_moved")
    assert latest(moved) == "epoch_3.pth"


def test_none(tmp_path, folder):
    assert latest(tmp_path / "nowhere") is None
    for number in (1, 2, 3):
        flip(folder / f"epoch_{number}.pth")
    with pytest.raises(InputError, match=r"no checkpoint in \S+ is whole; damaged: ep"):
        latest(folder)


def test_hostile_checkpoints_are_not_run(folder):
    class Run:
        def __reduce__(self):
            return os.mkdir, (str(folder / "mark"),)

    checkpoint(folder / "epoch_4.pth", 40, x=Run())
    assert latest(folder) == "epoch_3.pth"
    assert not (folder / "mark").exists()


class Full(Hook):
    """No file may be larger than a little, as on a disk that is full, from an
    iteration on."""

    priority = "HIGHEST"

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))


def test_a_full_disk(tmp_path, shapes_root):
    forget_instances(ManagerMixin)
    run = tmp_path / "run"
    cfg = small_runs.small("iterations", run, shapes_root)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(InputError) as error:
            small_runs.train(cfg, hooks=[Full(4)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = str(error.value)
    assert said.startswith(f"{run / 'iter_6.pth'} could not be written: ")
    assert " GB are free there" in said
    names = sorted(file.name for file in run.glob("*.pth"))  # hidden ones, too
    assert names == ["best_aAcc_iter_3.pth", "iter_3.pth"]
    assert latest(run) == "iter_3.pth"
    forget_instances(ManagerMixin)
    runner = small_runs.train(cfg, resume=True)
    assert runner.iter == 9
    assert latest(run) == "iter_9.pth"
    assert not (run / "iter_3.pth").exists()


def test_a_file_is_detached_from_its_other_names(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("x")
    os.link(a, b)
    for _ in range(2):
        files.detach(b)
        assert (b.read_text(), b.stat().st_nlink) == ("x", 1)
    b.unlink()
    b.symlink_to("nothing")
    files.detach(b)
    files.detach(tmp_path)
    assert os.listdir(tmp_path) == ["a"]
