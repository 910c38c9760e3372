"""A warm-up fits a short run, and a run says at its start what it does."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import BatchSampler, DataLoader

from convnext_dense.engine import summary
from convnext_dense.engine.short_runs import fit_warmup

from ..helpers import small_runs

WARMUP = dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=500)
DECAY = dict(type="PolyLR", by_epoch=False, begin=500, end=1000)
SHORTER = {"train_cfg.max_iters": 100}


def fitted(steps, settings=(), by_epoch=False, warmup=WARMUP):
    """The learning rates of a run of ``steps``, and what the log says."""
    loop = EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop
    schedulers = [dict(warmup), dict(DECAY)]
    runner = SimpleNamespace(
        train_loop=object.__new__(loop), max_iters=steps, param_schedulers=schedulers
    )
    lines = fit_warmup(runner, dict(settings))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    built = [
        PARAM_SCHEDULERS.build(copy.deepcopy(s), default_args=dict(optimizer=optimizer))
        for s in schedulers
    ]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    return rates, lines


@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_warm_up_longer_than_half_the_run(by_epoch):
    rates, lines = fitted(100, () if by_epoch else SHORTER, by_epoch)
    assert rates[0] == pytest.approx(0.01)
    assert rates[9] == pytest.approx(1)
    assert rates[8] < 1
    assert rates[20] < 1, "the next schedule begins after the warm-up"
    (line,) = lines
    assert "10 steps (config: 500 steps, more than half of this run's 100)" in line


@pytest.mark.parametrize("steps", [1, 5, 14])
def test_a_run_too_short_for_a_warm_up(steps):
    """One step of mmengine's LinearLR would keep the low rate for the whole run."""
    rates, lines = fitted(steps, SHORTER)
    assert rates[0] == 1
    assert "learning rate: none (config: 500 steps" in lines[0]


@pytest.mark.parametrize(
    ("steps", "settings"),
    [
        (1000, SHORTER),  # half of the run is not most of it
        (100, ()),  # the config's own length
        (100, {**SHORTER, "param_scheduler.0.end": 500}),
    ],
)
def test_other_warm_ups_stay(steps, settings):
    rates, lines = fitted(steps, settings)
    assert rates[99] == pytest.approx(0.01 + 0.99 * 99 / 499)
    assert not lines


def test_what_a_run_says_first(tmp_path, shapes_root, capfd):
    options = ["train_cfg.max_iters=1", "train_cfg.val_interval=1"]
    cfg = small_runs.small("iterations", tmp_path, shapes_root, options=options)
    small_runs.train(cfg)
    out, log = capfd.readouterr().out, small_runs.log(tmp_path)
    said = (
        "train: EncoderDecoder with ConvNeXt, 0.1 million parameters, on ",
        "data: 6 images (train), 3 images (val); 6 classes: ground, disc,",
        "weights: random",
        "length: 1 step, 2 images a step",
        "learning rate stays 0.003, which is for 4 images a step. For 2, the linear",
        "the config, the environment and all lines are in ",
    )
    for text in (out, log):
        places = [text.find(line) for line in said]
        assert min(places) >= 0, text[-3000:]
        assert places == sorted(places)
        assert places[-1] < text.index("Checkpoints will be saved")
    for left_out in ("System environment", "Hooks will be", "Config:"):
        assert left_out in log
        assert left_out not in out
    assert len(out.splitlines()) < 40


def test_images_of_a_step_with_a_batch_sampler():
    """The loader itself has no batch size then, as with mmdet's COCO configs."""
    loader = DataLoader(range(8), batch_sampler=BatchSampler(range(8), 2, False))
    assert loader.batch_size is None
    loop = SimpleNamespace(max_iters=4)
    runner = SimpleNamespace(train_loop=loop, train_dataloader=loader)
    assert summary._length(runner) == "length: 4 steps, 2 images a step"
    loader = DataLoader(range(8), batch_sampler=[[0], [1, 2]])
    runner = SimpleNamespace(train_loop=loop, train_dataloader=loader, _resume=False)
    assert summary._length(runner) == "length: 4 steps"
    assert summary._rate(runner, {}) is None
