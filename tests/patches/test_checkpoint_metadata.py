"""What a checkpoint says of its run is data, and is not run, opened or removed."""

import os
import shutil

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner._flexible_runner import FlexibleRunner
from mmengine.utils import ManagerMixin

import convnext_dense  # noqa: F401 (makes the changes)
from convnext_dense.errors import InputError

from ..helpers.hostile_checkpoints import WRONG_STATE, Rising, change, toy_runner
from ..helpers.mmengine_state import forget_instances, logged

CODE = "import os\nos.mkdir('MARK')\nmodel = dict(a=1)\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of one epoch."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    forget_instances(ManagerMixin)
    Rising.score = 0.0
    toy_runner(folder).train()
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of it, in which the test runs."""
    forget_instances(ManagerMixin)
    Rising.score = 1.0
    folder = shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return folder


def altered(run, *changes):
    """The checkpoint of ``run`` after changes, each a path and a value."""
    file = run / "epoch_1.pth"
    content = torch.load(file, weights_only=False)
    change(content, *hub("best_ckpt", str(run / "best_acc_epoch_1.pth")))
    for path, value in changes:
        change(content, path, value)
    torch.save(content, file)
    (run / "last_checkpoint").write_text(str(file))
    return file


def resume(run, file=None, epochs=2, **more):
    more = dict(more, resume=True, load_from=file and str(file))
    runner = toy_runner(run, epochs, **more)
    with logged() as messages:
        runner.train()
    return runner, messages


def test_an_honest_run_goes_on(run):
    altered(run)
    runner, messages = resume(run)
    assert (runner.epoch, runner.iter) == (2, 4)
    assert not [m for m in messages if "best checkpoint so far" in m]
    assert sorted(file.name for file in run.glob("*.pth")) == [
        "best_acc_epoch_2.pth",
        "epoch_1.pth",
        "epoch_2.pth",
    ]


@pytest.mark.parametrize("text", [CODE, b"\xff", 3, "[" * 10**5, "x = 1 +" * 10**5])
def test_the_config_in_it_is_not_run(run, text):
    altered(run, ("meta/config", text))
    assert resume(run)[0].epoch == 2
    assert not os.path.exists("MARK")


def test_mmengines_other_runner_does_not_run_it_either(run):
    altered(run, ("meta/config", CODE))
    assert resume(run, runner_type=FlexibleRunner)[0].epoch == 2
    assert not os.path.exists("MARK")
    forget_instances(ManagerMixin)
    file = altered(run, ("meta/iter", "x"))
    with pytest.raises(InputError, match="iter is 'x', not a whole number"):
        resume(run, file, runner_type=FlexibleRunner)


def test_the_number_of_gpus_is_still_compared(run):
    altered(run, ("meta/config", "gpu_ids = [0, 1, 2]"))
    with pytest.raises(InputError, match="Number of GPUs used for current experiment"):
        resume(run)


@pytest.mark.parametrize(
    "case", WRONG_STATE, ids=lambda c: f"{c[0]}-{str(c[1])[:20]}".replace("\0", "")
)
def test_wrong_state_is_a_message(run, case):
    path, value, message = case
    file = altered(run, (path, value))
    hooks = [EMAHook()] if "ema" in path else []
    with pytest.raises(InputError) as error:
        resume(run, file, hooks=hooks)
    assert message in str(error.value)
    assert str(file) in str(error.value) or "the checkpoint" in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_scheduler_keeps_its_methods(run):
    state = dict(step=3, _get_value="x", optimizer="x", unknown=torch.ones(3))
    changes = [(f"param_schedulers/0/{name}", value) for name, value in state.items()]
    altered(run, *changes)
    scheduler = resume(run)[0].param_schedulers[0]
    assert not {"step", "_get_value", "unknown"} & vars(scheduler).keys()
    assert isinstance(scheduler.optimizer, OptimWrapper)


def test_an_iteration_after_the_end(run):
    """mmengine would go through the data of all iterations before."""
    altered(run, ("meta/iter", 2**50))
    with pytest.raises(InputError, match=r"ends at iteration 3: raise train_cfg"):
        resume(run, epochs=3, by_epoch=False)


def hub(name, value):
    return f"message_hub/runtime_info/{name}", value


def precious(folder):
    """A folder that holds something of the user's."""
    folder.mkdir(parents=True)
    (folder / "photo.txt").write_text("holiday")
    return folder


@pytest.mark.parametrize(
    "name", ["photos", "run/photos", "best_acc_epoch_9.pth", "run/best_photos.pth"]
)
@pytest.mark.parametrize("folder", [True, False], ids=["folder", "file"])
def test_what_is_not_the_runs_is_not_removed(run, tmp_path, name, folder):
    path = tmp_path / name
    if folder:
        precious(path)
    else:
        path.write_text("holiday")
    altered(run, hub("best_ckpt", str(path)), hub("best_score", -1.0))
    messages = resume(run)[1]
    assert path.exists()
    (line,) = [m for m in messages if "best checkpoint so far" in m]
    assert str(path) in line
    assert "leaves it as it is" in line or f"the run takes {run / name}" in line


def test_links_are_not_followed(run, tmp_path):
    photos = precious(tmp_path / "photos")
    link = run / "best_acc_epoch_9.pth"
    link.symlink_to(photos)
    (run / "epoch_7.pth").symlink_to(photos)
    (run / "epoch_8.pth").symlink_to(photos)
    altered(
        run,
        *(hub("best_ckpt", str(link)), hub("best_score", -1.0)),
        hub("keep_ckpt_ids", [7, 8, 1]),
    )
    assert resume(run)[0].epoch == 2
    assert (photos / "photo.txt").exists()


def test_the_best_one_of_a_moved_run_is_replaced(run, tmp_path):
    moved = shutil.copytree(run, tmp_path / "moved")
    resume(moved)
    assert (run / "best_acc_epoch_1.pth").exists()
    assert not (moved / "best_acc_epoch_1.pth").exists()


def elsewhere(run, tmp_path):
    file = altered(run, ("meta/epoch", 7))
    outside = tmp_path / "elsewhere" / "epoch_7.pth"
    outside.parent.mkdir()
    shutil.move(file, outside)
    return outside


LAST = {  # what last_checkpoint names, beside a whole epoch_1.pth
    "a checkpoint outside": elsewhere,
    "a link to a checkpoint outside": lambda run, tmp: link(run, elsewhere(run, tmp)),
    "a folder outside": lambda run, tmp: precious(tmp / "photos"),
    "a folder": lambda run, tmp: precious(run / "photos"),
    "the folder above": lambda run, tmp: "..",
    "the folder itself": lambda run, tmp: ".",
    "a pipe": lambda run, tmp: pipe(run / "epoch_9.pth"),
    "a pipe outside": lambda run, tmp: pipe(tmp / "epoch_9.pth"),
    "a device": lambda run, tmp: "/dev/zero",
    "a link to a device": lambda run, tmp: link(run, "/dev/zero"),
    "a link to itself": lambda run, tmp: link(run, run / "epoch_9.pth"),
    "much": lambda run, tmp: "a" * 10**7,
    "control characters": lambda run, tmp: "\x1b[31m\0\n",
}


def link(run, target):
    path = run / "epoch_9.pth"
    path.symlink_to(target)
    return path


def pipe(path):
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("case", LAST, ids=lambda case: case.replace(" ", "-"))
def test_nothing_outside_is_resumed(run, tmp_path, case):
    shutil.copy(run / "epoch_1.pth", tmp_path / "kept.pth")
    name = LAST[case](run, tmp_path)
    shutil.move(tmp_path / "kept.pth", run / "epoch_1.pth")
    (run / "last_checkpoint").write_text(str(name))
    runner, messages = resume(run)
    assert runner.epoch == 2
    assert f"the run goes on from {run / 'epoch_1.pth'}" in messages
    if "outside" in case:
        assert any(
            "lies outside the run's folder" in m or "outside the run's folder" in m
            for m in messages
        )


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: os.symlink("/x", p)])
def test_last_checkpoint_is_no_file(run, make):
    (run / "last_checkpoint").unlink()
    make(run / "last_checkpoint")
    if os.path.isdir(run / "last_checkpoint"):
        os.rmdir(run / "last_checkpoint")
    runner = resume(run, epochs=1)[0]
    assert runner.epoch == 1


def test_checkpoints_in_another_folder_of_the_run(run, tmp_path):
    hook = dict(type="CheckpointHook", interval=1, out_dir=str(tmp_path / "big"))
    hooks = dict(checkpoint=hook)
    work_dir = tmp_path / "other"
    toy_runner(work_dir, default_hooks=hooks).train()
    assert (tmp_path / "big" / "other" / "epoch_1.pth").is_file()
    assert not list(work_dir.glob("*.pth"))
    assert resume(work_dir, default_hooks=hooks)[0].epoch == 2


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_run_writes_through_no_link(tmp_path, link):
    """Into a work dir that somebody else has packed."""
    outside, work_dir = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    work_dir.mkdir()
    for name in ("last_checkpoint", "c.py"):
        (outside / name).write_text("x = 1\n")
        link(outside / name, work_dir / name)
    forget_instances(ManagerMixin)
    runner = toy_runner(work_dir)
    runner.cfg._filename = "c.py"
    object.__setattr__(runner.cfg, "_filename", "c.py")
    runner.dump_config()
    runner.train()
    for name in ("last_checkpoint", "c.py"):
        assert (outside / name).read_text() == "x = 1\n"
        assert (work_dir / name).read_text() != "x = 1\n"


def test_a_checkpoint_of_another_run_names_nothing_of_this_one(run, tmp_path):
    """Resuming from it removes none of the checkpoints in this work dir."""
    keep = ("message_hub/runtime_info/keep_ckpt_ids", [1])
    score = ("message_hub/runtime_info/best_score", -1.0)
    other = tmp_path / "other"
    other.mkdir()
    file = shutil.move(altered(run, keep, score), other / "x.pth")
    (run / "epoch_1.pth").write_bytes(b"of the user")
    resume(run, file)
    assert (run / "epoch_1.pth").read_bytes() == b"of the user"
    assert (run / "best_acc_epoch_1.pth").exists()
