"""A run takes no more memory, files, threads, shared memory the longer it lasts."""

import json
import os
from statistics import median

import pytest
import torch
from mmengine.hooks import Hook

from ..helpers.running import shell
from ..programs import load


def memory(notes, window):
    """MB in the first and in the last notes."""
    periods = notes[:window], notes[-window:]
    return [median(note.memory for note in period) for period in periods]


def grown(notes, window):
    """The fields, except memory, whose last values all exceed all first values."""
    periods = notes[:window], notes[-window:]
    first, last = (load.Taken(*zip(*period, strict=True)) for period in periods)
    fields = zip(load.Taken._fields, first, last, strict=True)
    return [field for field, a, b in fields if field != "memory" and min(b) > max(a)]


def few_epochs(task, persistent, data, work_dir, *hooks):
    """Notes of the last six of twelve."""
    sizes = dict(epochs=12, every=3, warm_up=6, workers=1)
    more = dict(hooks=hooks, options=load.SMALL[task])
    return load.train(task, persistent, data, work_dir, **sizes, **more)


@pytest.mark.parametrize(
    ("task", "persistent"), [("detection", False), ("segmentation", True)]
)
def test_a_short_run_takes_no_more_and_more(task, persistent, shapes_root, tmp_path):
    before = load.taken().processes  # Python has helpers of its own
    notes = few_epochs(task, persistent, shapes_root, tmp_path)
    first, last = memory(notes, 3)
    assert last - first < 5
    assert grown(notes, 3) == []
    workers = {note.processes - before for note in notes}
    assert workers == {2 if persistent else 1}


class Leak(Hook):
    """Three megabytes each iteration, a file each epoch."""

    def __init__(self):
        self.kept = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.kept.append(torch.ones(750_000))
        if batch_idx % 3 == 2:
            self.kept.append(open(os.devnull))  # noqa: SIM115


def test_a_leak_is_seen(shapes_root, tmp_path):
    notes = few_epochs("segmentation", True, shapes_root, tmp_path, Leak())
    first, last = memory(notes, 3)
    assert last - first > 8
    assert grown(notes, 3) == ["files"]


@pytest.mark.skipif(
    "CONVNEXT_DENSE_LOAD" not in os.environ, reason="minutes each: make test-long"
)
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("task", load.CONFIGS)
def test_200_epochs_take_no_more_and_more(task, persistent, tmp_path):
    run = tmp_path / "run"
    stay = ["--persistent"] if persistent else []
    done = shell("-m", "tests.programs.load", task, tmp_path / "shapes", run, *stay)
    assert done.returncode == 0, done.stderr
    notes = [
        load.Taken(**note) for note in json.loads((run / "taken.json").read_text())
    ]
    first, last = memory(notes, 20)
    print(f"{task}, {stay}: {first:.0f} -> {last:.0f} MB, {notes[0]} -> {notes[-1]}")
    assert last < 1.03 * first
    assert grown(notes, 20) == []
