"""The page says how far a run came and how it ended, also of short runs."""

import json
import os
import re
import time
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from convnext_dense.reports.run import curves, page, progress, tables
from convnext_dense.reports.run.progress import FINISHED, STOPPED, UNKNOWN, Progress

BY_ITER = Config(dict(default_scope="mmseg", train_cfg=dict(max_iters=4)))
BY_EPOCH = Config(dict(default_scope="mmdet", train_cfg=dict(max_epochs=4)))


def step(iteration, **more):
    return dict(iter=iteration, step=iteration, loss=1.0, lr=0.1, time=0.05, **more)


def start(folder, rows, text="", day=1, cfg=""):
    """The logs of a start: its lines, the end of its text and its config."""
    name = f"2026010{day}_000000"
    data = folder / name / "vis_data"
    data.mkdir(parents=True)
    (folder / name / f"{name}.log").write_text(text)
    (data / "config.py").write_text(cfg)
    if rows:
        (data / "scalars.json").write_text("\n".join(map(json.dumps, rows)))


def ended(text):
    return f"2026/01/01 00:00:00 - mmengine - INFO - training {text}\n"


def text_of(folder, cfg, results="No results."):
    file = folder / "page.html"
    page.write(file, folder, cfg, results, None, None, {})
    return file.read_text()


def facts(text):
    """The tiles at the top of a page: names and values."""
    tiles = re.search('<div class="facts">(.*?)\n</div>', text, re.S)[1]
    pairs = re.findall(r"<b>(.*?)</b>(.*?)</div>", tiles)
    return {name: value for value, name in pairs}


def warnings(text):
    return re.findall(r'<p class="warning">(.*?)</p>', text)


def test_four_of_four_iterations_of_which_one_is_logged(tmp_path):
    """mmengine logs the first epoch's end and every 50th iteration."""
    rows = [step(1), dict(mIoU=50.0, mAcc=60.0, step=4)]
    start(tmp_path, rows, ended("ended after 4 of 4 iterations"))
    text = text_of(tmp_path, BY_ITER)
    assert facts(text) == {
        "mIoU, iteration 4": "50",
        "iterations": "4 of 4",
        "in training steps": "0.2 s",
        "a step": "0.05 s",
        "waiting for data": "0%",
    }
    assert "One iteration was logged: " in text
    assert "<b>60</b>mAcc" in text  # one validation makes no curve
    assert "<b>1</b>loss" in text
    assert "<img" not in text
    assert "interrupted" not in text


def test_four_iterations_of_which_none_is_logged(tmp_path):
    rows = [dict(mIoU=50.0, step=2), dict(mIoU=40.0, step=4)]
    start(tmp_path, rows, ended("ended after 4 of 4 iterations"))
    cfg = Config({**BY_ITER, "default_hooks": dict(logger=dict(interval=50))})
    text = text_of(tmp_path, cfg)
    assert facts(text) == {
        "mIoU, iteration 4": "40",
        "best mIoU, iteration 2": "50",
        "iterations": "4 of 4",
    }
    assert "No iteration was logged: the run writes a line every 50 iterations" in text
    assert text.count("<img") == 1  # the metric


def test_a_test_in_the_work_dir_is_no_training(tmp_path):
    start(tmp_path, [step(4)], ended("ended after 4 of 4 iterations"))
    start(tmp_path, [dict(mIoU=9.0, step=0)], "Iter(test) [3/3]  mIoU: 9\n", day=2)
    logged = curves.read(tmp_path)
    assert logged.validations == []
    assert progress.read(tmp_path, BY_ITER, logged).end == FINISHED


@pytest.mark.parametrize(
    ("rows", "text", "saved", "reached"),
    [
        ([step(3)], "", None, Progress("iterations", 3, 4, UNKNOWN)),
        ([step(1)], "", "iter_4.pth", Progress("iterations", 4, 4, FINISHED)),
        ([step(1)], "", "other.pth", Progress("iterations", 1, 4, UNKNOWN)),
        (
            [step(1)],
            ended("was stopped early, after 2 of 4 iterations"),
            None,
            Progress("iterations", 2, 4, STOPPED),
        ),
        # In epoch 3 only 2 are complete.
        ([step(30, epoch=3)], "", None, Progress("epochs", 2, 4, UNKNOWN)),
        ([step(30, epoch=3)], "", "epoch_3.pth", Progress("epochs", 3, 4, UNKNOWN)),
        (
            [step(30, epoch=3), dict(mAP=1.0, step=3)],
            "",
            "iter_30.pth",
            Progress("epochs", 3, 4, UNKNOWN),
        ),
        ([], "", None, None),
    ],
)
def test_how_far_a_run_came(tmp_path, rows, text, saved, reached):
    start(tmp_path, rows, text)
    if saved:
        (tmp_path / saved).touch()
        (tmp_path / "last_checkpoint").write_text(saved)
    cfg = BY_EPOCH if rows and "epoch" in rows[0] else BY_ITER
    logged = curves.read(tmp_path)
    assert progress.read(tmp_path, cfg, logged) == reached


def test_a_checkpoint_of_an_earlier_start_does_not_count(tmp_path):
    start(tmp_path, [step(1)])
    (tmp_path / "iter_4.pth").touch()
    (tmp_path / "last_checkpoint").write_text("iter_4.pth")
    before = time.mktime((2025, 1, 1, 0, 0, 0, 0, 0, -1))
    os.utime(tmp_path / "last_checkpoint", (before, before))
    logged = curves.read(tmp_path)
    assert progress.read(tmp_path, BY_ITER, logged).done == 1


def test_a_run_resumed_with_another_length_and_interrupted(tmp_path):
    config = "train_cfg = dict(\n    max_epochs={}, type='EpochBasedTrainLoop')\n"
    rows = [step(10, epoch=1), dict(mAP=0.1, step=1)]
    start(tmp_path, rows, ended("ended after 1 of 1 epochs"), 1, config.format(1))
    for day in (2, 3):
        rows = [step(10 * day, epoch=day), dict(mAP=0.3 / day, step=day)]
        start(tmp_path, rows, "", day, config.format(4))
    text = text_of(tmp_path, BY_EPOCH)
    assert facts(text)["epochs"] == "3 of 4"
    assert warnings(text)[:2] == [
        "Training was interrupted or is still running: the work dir shows 3 of 4 "
        "epochs; the last logged iteration is 30.",
        "The planned length was changed when the run was resumed: 1 epoch, then "
        "4 epochs.",
    ]
    assert "<td>20260102_000000</td><td>20</td>" in text
    assert text.count("<td>4 epochs</td>") == 2


def test_many_starts_are_folded(tmp_path):
    for day in range(1, 10):
        start(tmp_path, [step(day)], day=day)
    text = text_of(tmp_path, BY_ITER)
    assert "and 1 earlier starts" in text
    assert text.index("20260109_000000") < text.index("20260101_000000")


def test_a_run_stopped_early(tmp_path):
    rows = [step(10, epoch=1), dict(mAP=0.1, step=1), step(20, epoch=2)]
    rows.append(dict(mAP=0.05, step=2))
    start(tmp_path, rows, ended("was stopped early, after 2 of 4 epochs"))
    hook = dict(type="EarlyStoppingHook", monitor="mAP")
    cfg = Config({**BY_EPOCH, "custom_hooks": [hook]})
    assert warnings(text_of(tmp_path, cfg))[0] == (
        "Training was stopped early, after 2 of 4 epochs. EarlyStoppingHook watched "
        "mAP."
    )


def test_the_command_for_the_best_checkpoint(tmp_path):
    best, last = (curves.Validation(10 * e, e, {}) for e in (1, 2))
    assert page._best_command(tmp_path, last, last) is None
    assert page._best_command(tmp_path, best, last) == ""
    (tmp_path / "epoch_1.pth").touch()
    (tmp_path / "best_mAP_epoch_2.pth").touch()
    command = page._best_command(tmp_path, best, last)
    assert command == (
        f"convnext-dense report {tmp_path} --checkpoint {tmp_path}/epoch_1.pth"
    )
    (tmp_path / "best_mAP_epoch_1.pth").touch()
    assert page._best_command(tmp_path, best, last).endswith("best_mAP_epoch_1.pth")


def test_metrics_that_are_no_numbers(tmp_path):
    rows = [step(1), dict(mIoU=50.0, step=1), step(2), dict(mIoU=float("nan"), step=2)]
    start(tmp_path, rows, ended("ended after 2 of 4 iterations"))
    text = text_of(tmp_path, BY_ITER)
    assert facts(text)["mIoU, iteration 1"] == "50"
    assert "mIoU is not a number in 1 of 2 validations." in warnings(text)


def loop(kind, epoch, iteration):
    """A training loop after ``epoch`` epochs and ``iteration`` iterations."""
    made = kind.__new__(kind)
    made._epoch, made._iter = epoch, iteration
    made._max_epochs, made._max_iters = 4, 40
    return made


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (loop(EpochBasedTrainLoop, 4, 40), "training ended after 4 of 4 epochs"),
        (
            loop(EpochBasedTrainLoop, 2, 20),
            "training was stopped early, after 2 of 4 epochs",
        ),
        (loop(IterBasedTrainLoop, 0, 40), "training ended after 40 of 40 iterations"),
    ],
)
def test_the_line_is_read_as_it_is_written(tmp_path, made, line):
    assert progress.last_line(SimpleNamespace(train_loop=made)) == line
    start(tmp_path, [step(1)], ended(line.removeprefix("training ")))
    reached = progress.read(tmp_path, BY_ITER, curves.read(tmp_path))
    assert reached.end == (STOPPED if "early" in line else FINISHED)
    assert f"{reached.done} of {reached.planned} {reached.unit}" in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.042, "0.042 s"),
        (9.96, "10 s"),
        (60, "1 min"),
        (75, "1 min 15 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(seconds, text):
    assert tables.duration(seconds) == text
