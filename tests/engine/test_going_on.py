"""Resumed runs: longer, shorter, finished, and stopped early by a hook."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.utils import ManagerMixin

from convnext_dense.errors import InputError

from ..helpers import small_runs
from ..helpers.mmengine_state import forget_instances

SHORT = [
    *("train_cfg.max_iters=6", "train_cfg.val_interval=2"),
    *(
        "default_hooks.checkpoint.interval=2",
        "default_hooks.checkpoint.max_keep_ckpts=9",
    ),
]


@pytest.fixture
def train(tmp_path, shapes_root):
    """Trains or resumes a small run by iterations; returns the Runner and its log."""

    def run(
        *options, name="run", resume=False, loop="iterations", hooks=(), change=None
    ):
        forget_instances(ManagerMixin)
        work_dir = tmp_path / name
        cfg = small_runs.small(loop, work_dir, shapes_root, options=[*SHORT, *options])
        if change:
            change(cfg)
        runner = small_runs.train(cfg, resume=resume, hooks=hooks)
        return runner, " ".join(small_runs.log(work_dir).split())

    return run


def rates(work_dir):
    """Logged learning rates by iteration."""
    return {k[1]: v["lr"] for k, v in small_runs.logged(work_dir).items() if k[0]}


def test_a_longer_run_with_another_rate(train, tmp_path):
    wishes = ["train_cfg.max_iters=8", "param_scheduler.1.end=8"]
    wishes += ["param_scheduler.0.end=3", "optim_wrapper.optimizer.lr=0.002"]
    train(
        "param_scheduler.0.end=3",
        "param_scheduler.1.end=6",
        "param_scheduler.1.begin=3",
    )
    wishes += ["param_scheduler.1.begin=3"]
    runner, log = train(*wishes, resume=True)
    assert runner.iter == 8
    assert "train_cfg.max_iters is 8 and was 6" in log
    assert "as if it had been used from the start: the next learning rate is " in log
    train(*wishes, name="new")
    resumed, expected = rates(tmp_path / "run"), rates(tmp_path / "new")
    assert [resumed[n] for n in (7, 8)] == [expected[n] for n in (7, 8)]
    assert resumed[7] > 0
    # The same command again: nothing is left, and nothing is named as different.
    report = tmp_path / "run/report.html"
    runner, log = train(*wishes, resume=True)
    assert "nothing is left to train: the run has all of its 8 iterations. To " in log
    assert "another config" not in log
    assert not report.exists()


def test_fewer_than_done(train, tmp_path):
    train()
    before = sorted(p.name for p in (tmp_path / "run").iterdir())
    message = "the run has 6 iterations already, and this run ends at 4: raise "
    with pytest.raises(InputError, match=message):
        train("train_cfg.max_iters=4", resume=True)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == before


EARLY = dict(
    type="EarlyStoppingHook",
    monitor="mIoU",
    rule="greater",
    min_delta=100.0,
    patience=1,
)


def stopping(cfg):
    cfg.custom_hooks = [dict(EARLY)]


def test_early_stopping_is_resumed(train, tmp_path):
    """The count goes on; the end is saved, named, and left on request."""
    whole, _ = train(change=stopping, name="whole")
    assert whole.iter == 4  # no better than the first validation, once
    train("train_cfg.max_iters=2", change=stopping)
    assert train(resume=True, change=stopping)[0].iter == 4
    assert not small_runs.differences(tmp_path / "whole", tmp_path / "run")
    runner, log = train(resume=True, change=stopping)
    assert runner.iter == 4
    advice = "custom_hooks.0.patience=2"
    assert "the run was stopped early, after 4 of 6 iterations, by Early" in log
    assert f"To train on, change what stopped it: --cfg-options {advice}" in log
    assert "the validation that is due" not in log

    def follow(cfg):
        stopping(cfg)
        cfg.merge_from_dict({advice.split("=")[0]: 2})

    assert train(resume=True, change=follow)[0].iter == 6
