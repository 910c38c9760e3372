"""A resumed run has the schedule of its own command, where it is."""

import copy
import math
from types import SimpleNamespace

import mmdet.engine.schedulers  # noqa: F401  (registers QuadraticWarmup)
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import PARAM_SCHEDULERS

from convnext_dense.engine.exact_resume.schedules import Position, use_new_settings
from convnext_dense.errors import InputError


class Run:
    """Two groups of a model, their schedules, and steps as mmengine's runner makes.

    Args:
        length: iterations of an epoch; None for a run by iterations.
        end: the run's last iteration.
    """

    def __init__(self, schedules, lr=1.0, length=None, end=24, **options):
        self.model = torch.nn.Linear(2, 2)
        self.length, self.end, self.iteration = length, end, 0
        options = options if "type" in options else dict(SGD, **options)
        optimizer_type = getattr(torch.optim, options.pop("type"))
        weight, bias = self.model.parameters()
        groups = [dict(params=[weight]), dict(params=[bias], lr=lr / 10)]
        self.optim_wrapper = OptimWrapper(optimizer_type(groups, lr=lr, **options))
        self.cfg = Config(dict(param_scheduler=schedules))
        self.param_schedulers = [
            PARAM_SCHEDULERS.build(
                copy.deepcopy(schedule),
                default_args=dict(
                    optimizer=self.optim_wrapper, epoch_length=length or 10**6
                ),
            )
            for schedule in schedules
        ]

    def to(self, iteration):
        """Train to an iteration; yield the settings of each step."""
        while self.iteration < iteration:
            yield self.values()
            self.optim_wrapper.step()
            self.iteration += 1
            for scheduler in self.param_schedulers:
                epoch = self.length and self.iteration % self.length == 0
                if not scheduler.by_epoch or epoch:
                    scheduler.step()

    def values(self):
        return [
            {k: v for k, v in group.items() if k != "params"}
            for group in self.optim_wrapper.param_groups
        ]

    def checkpoint(self):
        return copy.deepcopy(
            dict(
                optimizer=self.optim_wrapper.state_dict(),
                param_schedulers=[s.state_dict() for s in self.param_schedulers],
            )
        )

    def resume(self, checkpoint, iteration, moved=False):
        """Load a checkpoint as mmengine does."""
        self.iteration = iteration
        epochs = iteration // self.length if self.length else 0
        position = Position(epochs, iteration, self.length, self.end)
        change = use_new_settings(self, checkpoint, position, moved)
        self.optim_wrapper.load_state_dict(checkpoint["optimizer"])
        states = checkpoint["param_schedulers"]
        for scheduler, state in zip(self.param_schedulers, states, strict=True):
            scheduler.load_state_dict(state)
        return change


SGD = dict(type="SGD", momentum=0.9)
STEPS = dict(by_epoch=False)
WARMUP = dict(type="LinearLR", start_factor=0.1, begin=0, end=4, **STEPS)
COSINE = dict(type="CosineAnnealingLR", T_max=20, begin=4, end=24, **STEPS)
RESTART = dict(
    type="CosineRestartLR", periods=[6, 18], restart_weights=[1, 0.5], eta_min=0
)
CYCLE = dict(type="OneCycleLR", eta_max=2.0, total_steps=24, **STEPS)
FLAT = dict(type="ConstantLR", factor=0.5, begin=0, end=6, **STEPS)
FALL = dict(type="ExponentialLR", gamma=0.9, **STEPS)
QUADRATIC = dict(type="mmdet.QuadraticWarmupLR", begin=0, end=8, **STEPS)
STEP = dict(type="MultiStepLR", **STEPS)
# A schedule, and what another command changes in it.
CHANGES = {
    "linear": (WARMUP, dict(start_factor=0.5, end=12)),
    "poly": (dict(type="PolyLR", power=0.9, end=24, **STEPS), dict(end=48)),
    "poly to a least": (dict(type="PolyLR", end=24, **STEPS), dict(eta_min=0.1)),
    "cosine": (COSINE, dict(T_max=44, end=48)),
    "a ratio": (COSINE, dict(eta_min_ratio=0.2)),
    "restarts": (dict(RESTART, **STEPS), dict(periods=[10, 20])),
    "milestones": (dict(STEP, milestones=[8, 20]), dict(milestones=[4, 30])),
    "later milestones": (dict(STEP, milestones=[20]), dict(milestones=[22])),
    "steps": (dict(type="StepLR", step_size=5, **STEPS), dict(step_size=7, gamma=0.3)),
    "exponential": (FALL, dict(gamma=0.95)),
    "constant": (FLAT, dict(factor=0.2, end=20)),
    "one cycle": (CYCLE, dict(total_steps=48)),
    "a higher cycle": (dict(CYCLE, end=20), dict(eta_max=3.0)),
    "quadratic": (QUADRATIC, dict(end=20)),
    "momentum": (
        dict(type="CosineAnnealingMomentum", T_max=24, eta_min=0.5, **STEPS),
        dict(T_max=48),
    ),
    "another parameter": (
        dict(type="LinearParamScheduler", param_name="weight_decay", end=24, **STEPS),
        dict(end=48),
    ),
}


def same(first, second):
    """Whether the settings of two steps are equal."""
    assert [group.keys() for group in first] == [group.keys() for group in second]
    return all(
        a[name] == pytest.approx(b[name], rel=1e-12, abs=1e-15)
        for a, b in zip(first, second, strict=True)
        for name in a
        if isinstance(a[name], float | tuple)
    )


def goes_on(before, now, at=9, end=48, **more):
    """Whether a run that changes at an iteration continues like a new one there.

    Args:
        before, now: arguments of ``Run``.
    """
    first, second = Run(**{**more, **before}), Run(**{"end": end, **more, **now})
    list(first.to(at))
    change = second.resume(first.checkpoint(), at)
    reference = Run(**{"end": end, **more, **now})
    expected = list(reference.to(end))[at:]
    resumed = list(second.to(end))
    assert change is not None
    assert change.now == pytest.approx(max(group["lr"] for group in expected[0]))
    return all(map(same, resumed, expected)) and len(resumed) == len(expected)


@pytest.mark.parametrize("name", CHANGES)
def test_another_schedule(name):
    schedule, changes = CHANGES[name]
    more = dict(weight_decay=0.1)
    assert goes_on(
        dict(schedules=[schedule]), dict(schedules=[schedule | changes]), **more
    )


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "RMSprop"])
def test_another_optimizer_setting(optimizer):
    before = dict(type=optimizer, lr=1.0, weight_decay=0.1)
    now = dict(type=optimizer, lr=0.3, weight_decay=0.2)
    for settings in (before, now):
        settings["schedules"] = [WARMUP, COSINE]
    now.update(dict(betas=(0.8, 0.9)) if optimizer == "AdamW" else dict(momentum=0.7))
    if optimizer == "RMSprop":
        before["momentum"] = 0.9
    assert goes_on(before, now, end=24)


def test_momentum_of_adam():
    """mmengine schedules the first of ``betas`` under the name momentum."""
    schedule = dict(type="LinearMomentum", start_factor=0.5, end=12, **STEPS)
    first = Run([schedule], type="AdamW", betas=(0.9, 0.99))
    list(first.to(5))
    unchanged = Run([schedule], type="AdamW", betas=(0.9, 0.99))
    assert unchanged.resume(first.checkpoint(), 5) is None
    second, reference = (
        Run([schedule], type="AdamW", betas=(0.8, 0.99)) for _ in range(2)
    )
    second.resume(first.checkpoint(), 5)
    expected = list(reference.to(24))[5:]
    assert all(map(same, second.to(24), expected))
    assert expected[-1][0]["betas"] == pytest.approx((0.8, 0.99))


def test_schedules_by_epoch_and_iteration_together():
    """Epochs of 5 iterations: 2 are done, and 3 iterations of the third."""
    schedules = [WARMUP, dict(type="CosineAnnealingLR", T_max=4, end=4)]
    longer = [WARMUP, dict(type="CosineAnnealingLR", T_max=8, end=8)]
    for at in (10, 13):
        assert goes_on(
            dict(schedules=schedules), dict(schedules=longer), at, 40, length=5
        )


def test_the_last_iteration_of_an_epoch_that_is_not_completed():
    """A signal can stop a run before its schedules take the epoch's step."""
    first, second, reference = (
        Run([dict(STEP, by_epoch=True, milestones=[1, 2], gamma=gamma)], length=5)
        for gamma in (0.5, 0.1, 0.1)
    )
    list(first.to(9))
    use_new_settings(second, first.checkpoint(), Position(1, 10, 5, 24), False)
    list(reference.to(9))
    assert same(second.values(), reference.values())


def test_other_kinds_of_schedules():
    """Cosine instead of steps, and one schedule more or fewer."""
    steps = [dict(type="MultiStepLR", milestones=[3], **STEPS)]
    for now in ([WARMUP, COSINE], [COSINE], [dict(type="PolyLR", end=48, **STEPS)], []):
        assert goes_on(dict(schedules=steps), dict(schedules=now), end=20)
    assert goes_on(dict(schedules=[]), dict(schedules=steps), end=20)
    epochs = dict(type="MultiStepLR", milestones=[1], by_epoch=True)
    converted = dict(epochs, convert_to_iter_based=True)
    assert goes_on(
        dict(schedules=[epochs]), dict(schedules=[converted, FALL]), 8, 20, length=5
    )


def test_closed_forms():
    """After 4 epochs with cosine steps to 0, 8 epochs are asked for."""
    first = Run([dict(type="CosineAnnealingLR", T_max=4, end=4)], length=5)
    list(first.to(20))
    rate = first.values()[0]["lr"]
    second = Run([dict(type="CosineAnnealingLR", T_max=8, end=8)], length=5, end=40)
    change = second.resume(first.checkpoint(), 20)
    assert (change.before, change.now) == pytest.approx((rate, 0.5))
    assert "T_max" in change.names
    for number, values in enumerate(second.to(40)):
        rate = (1 + math.cos(math.pi * (4 + number // 5) / 8)) / 2
        assert values[0]["lr"] == pytest.approx(rate)
        assert values[1]["lr"] == pytest.approx(rate / 10)


@pytest.mark.parametrize("name", CHANGES)
def test_nothing_changes_without_new_settings(name):
    """Also what a hook has done to a learning rate stays."""
    schedules = [CHANGES[name][0]]
    first, second = Run(schedules), Run(schedules)
    list(first.to(9))
    if name not in ("momentum", "another parameter"):
        first.optim_wrapper.optimizer.param_groups[0]["lr"] = 0.123
    checkpoint = first.checkpoint()
    before = copy.deepcopy(checkpoint)
    assert second.resume(checkpoint, 9) is None
    assert (
        checkpoint["optimizer"]["param_groups"] == before["optimizer"]["param_groups"]
    )
    states = zip(
        checkpoint["param_schedulers"], before["param_schedulers"], strict=True
    )
    assert all(a == b for a, b in states)
    assert same(second.values(), first.values())


def test_several_optimizers():
    runs = {name: (Run([FALL]), Run([FALL | dict(gamma=g)])) for name, g in GAMMAS}
    for first, _ in runs.values():
        list(first.to(6))
    checkpoint = dict(
        optimizer={
            n: first.checkpoint()["optimizer"] for n, (first, _) in runs.items()
        },
        param_schedulers={
            n: first.checkpoint()["param_schedulers"] for n, (first, _) in runs.items()
        },
    )
    runner = SimpleNamespace(
        optim_wrapper=OptimWrapperDict(
            **{name: second.optim_wrapper for name, (_, second) in runs.items()}
        ),
        param_schedulers={
            n: second.param_schedulers for n, (_, second) in runs.items()
        },
        cfg=Config({}),
    )
    change = use_new_settings(runner, checkpoint, Position(0, 6, None, 24), False)
    assert change.names == ["gamma"]
    runner.optim_wrapper.load_state_dict(checkpoint["optimizer"])
    for name, gamma in GAMMAS:
        rate = runs[name][1].values()[0]["lr"]
        assert rate == pytest.approx(gamma**6)
        assert checkpoint["param_schedulers"][name][0]["gamma"] == gamma


GAMMAS = [("a", 0.9), ("b", 0.8)]


def test_a_schedule_that_has_ended():
    """The run is longer, and its schedule is not: the model would not learn."""
    short = [WARMUP, dict(type="PolyLR", end=24, **STEPS)]
    first, second = Run(short), Run(short, lr=2.0, end=48)
    list(first.to(24))
    with pytest.raises(
        InputError, match=r"the learning rate is 0 from iteration 24 to"
    ):
        second.resume(first.checkpoint(), 24)
    # At 0 for the moment only: it restarts.
    restarts = [dict(RESTART, **STEPS)]
    first, second = Run(restarts), Run(restarts, lr=2.0)
    for run in (first, second):
        run.param_schedulers[0].end = 24
    list(first.to(6))
    values = second.resume(first.checkpoint(), 6)
    assert values.now == pytest.approx(1.0)


PLATEAU = dict(type="ReduceOnPlateauLR", monitor="loss", patience=0, factor=0.5)


def plateau(**changes):
    options = {k: changes.pop(k) for k in ("lr", "weight_decay") if k in changes}
    return Run([WARMUP, PLATEAU | changes], length=5, **options)


def test_a_schedule_by_metric():
    """Its state is kept; only what cannot change the past may be new."""
    first = plateau(end=4)
    list(first.to(10))
    for loss in (1.0, 1.0, 1.0):
        first.param_schedulers[1].step(dict(loss=loss))
    assert first.values()[0]["lr"] == pytest.approx(0.25)
    for changes in (dict(end=8), dict(end=4, weight_decay=0.5)):
        second = plateau(**changes)
        second.resume(first.checkpoint(), 10)
        assert second.values()[0]["lr"] == pytest.approx(0.25)
        assert second.values()[0]["weight_decay"] == changes.get("weight_decay", 0)
        scheduler = second.param_schedulers[1]
        assert (scheduler.best, scheduler.end) == (1.0, changes["end"])
    for changes in (dict(lr=2.0), dict(factor=0.1), dict(patience=3), dict(end=1)):
        with pytest.raises(InputError, match="follows the metrics of its validations"):
            plateau(**{"end": 4, **changes}).resume(first.checkpoint(), 10)
    with pytest.raises(InputError, match="follows the metrics"):
        Run([WARMUP, COSINE], length=5).resume(first.checkpoint(), 10)


def test_groups_of_other_parameters():
    first, second = Run([COSINE]), Run([COSINE])
    for run, name in ((first, "a"), (second, "b")):
        run.optim_wrapper.optimizer.param_groups[0]["param_names"] = [name]
    with pytest.raises(InputError, match="hold other parameters than the checkpoint's"):
        second.resume(first.checkpoint(), 0)
