"""Gives a resumed run the learning rates and optimizer settings of its own command.

mmengine's schedulers compute each value from the one before. So a scheduler that gets
another length in the middle of a run computes wrong values, often 0. Here the run's new
schedulers, which are at the beginning when a checkpoint is loaded, take all steps of
the run so far. Their values replace the checkpoint's before mmengine loads it. If no
setting differs, the checkpoint stays as it is.
"""

import math
import numbers
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor

from convnext_dense.errors import InputError
from convnext_dense.utils.text import few

# What schedulers change while they step; the rest of their attributes are settings.
_PROGRESS = {
    *("last_step", "_global_step", "_last_value", "verbose", "optimizer"),
    *("best", "num_bad_epochs", "cooldown_counter"),
}
_OTHER_RUN = (
    "Resume with the settings with which the run began. To start another run from the "
    "checkpoint's weights: --cfg-options load_from=FILE"
)
_NOTHING = 1e-12  # of the first learning rate: the model does not learn


@dataclass
class Position:
    """Where a run is.

    Attributes:
        epochs: completed epochs; 0 in a run by iterations.
        iterations: of the whole run so far.
        length: of an epoch, in iterations; None in a run by iterations.
        end: the run's last iteration.
    """

    epochs: int
    iterations: int
    length: int | None
    end: int


@dataclass
class Change:
    """What differs from the checkpoint's settings, and the next learning rates.

    Attributes:
        names: of the settings.
        before, now: the largest learning rate of the next step, before and after.
    """

    names: list[str]
    before: float
    now: float


@dataclass
class _Optimizer:
    """An optimizer of the run beside its state in the checkpoint.

    Attributes:
        groups: parameter groups of the run, which has not begun.
        saved: those of the checkpoint, in the same order.
        schedulers: of the run.
        states: of the schedulers in the checkpoint.
    """

    groups: list[dict]
    saved: list[dict]
    schedulers: list[Any]
    states: list[Mapping]

    def settings(self) -> Iterator[str]:
        """Names the optimizer's settings that differ."""
        names: dict[str, None] = {}
        for group, saved in zip(self.groups, self.saved, strict=True):
            now, before = _at_start(group), _at_start(saved)
            for name in now.keys() & before.keys():
                if not _same(now[name], before[name]):
                    names[name] = None
        yield from sorted(names)

    def schedules(self) -> Iterator[tuple[int, str]]:
        """Names the schedulers' settings that differ, with the scheduler's number."""
        for number, scheduler in enumerate(self.schedulers):
            now = _constants(vars(scheduler))
            if number < len(self.states):
                before = _constants(self.states[number])
                left = before.keys() - vars(scheduler).keys()
                for name in sorted(now.keys() | left):
                    if name == "base_values":  # the optimizer's settings
                        continue
                    missing = name not in before or name not in now
                    if missing or not _same(now[name], before[name]):
                        yield number, name
            else:
                yield number, "type"
        for number in range(len(self.schedulers), len(self.states)):
            yield number, "type"

    def by_metric(self) -> bool:
        """Whether a schedule depends on the metrics of past validations."""
        return any(getattr(s, "need_val_args", False) for s in self.schedulers) or any(
            "num_bad_epochs" in state for state in self.states
        )


def use_new_settings(
    runner: Runner, checkpoint: dict, position: Position, moved: bool
) -> Change | None:
    """Write the run's settings, and its schedules' values, into the checkpoint.

    Args:
        runner: has built its optimizers and schedulers, and not loaded anything.
        checkpoint: of the run; ``run_state`` has checked it.
        position: that the checkpoint has reached, in the steps of this run.
        moved: whether steps have another size than in the checkpoint, so that schedules
            by iterations have to be computed again.

    Returns:
        What changed; None if the checkpoint can be used as it is.

    Raises:
        InputError: the settings cannot be changed in the middle of a run.
    """
    optimizers = _optimizers(runner, checkpoint)
    names: list[str] = []
    before, rates = 0.0, 0.0
    for optimizer in optimizers:
        settings = list(optimizer.settings())
        schedules = list(optimizer.schedules())
        names += settings + [name for _, name in schedules]
        before = max(before, _largest(optimizer.saved))
        if optimizer.by_metric():
            _use_beside_metrics(optimizer, settings, schedules)
        elif settings or schedules or moved:
            _step(optimizer.schedulers, position)
            _replace(optimizer)
        rates = max(rates, _largest(optimizer.saved))
    if optimizers and position.iterations < position.end:
        _check_rates(runner, optimizers, position)
    if not names and not moved:
        return None
    return Change(sorted(set(names)), before, rates)


def _optimizers(runner: Runner, checkpoint: dict) -> list[_Optimizer]:
    """The optimizers of a run whose groups are as many as the checkpoint's.

    mmengine refuses the others when it loads the checkpoint.

    Raises:
        InputError: the groups hold other parameters.
    """
    owner = getattr(runner, "strategy", runner)  # a FlexibleRunner has a strategy
    wrapper = owner.optim_wrapper
    schedulers = getattr(owner, "param_schedulers", None) or []
    states = checkpoint.get("param_schedulers") or []
    several = isinstance(wrapper, OptimWrapperDict)
    optimizers = {}
    for name, of_name in (wrapper.optim_wrappers if several else {"": wrapper}).items():
        saved = checkpoint["optimizer"]
        saved = saved.get(name) if several else saved
        if not saved or not hasattr(of_name, "optimizer"):
            continue
        groups, saved_groups = of_name.param_groups, list(saved["param_groups"])
        if saved.get("base_param_settings"):
            saved_groups.append(saved["base_param_settings"])
        if len(groups) != len(saved_groups):
            continue
        for group, other in zip(groups, saved_groups, strict=True):
            if group.get("param_names") != other.get("param_names"):
                raise InputError(
                    "--resume: the optimizer's parameter groups hold other parameters "
                    f"than the checkpoint's. {_OTHER_RUN}"
                )
        optimizers[name] = _Optimizer(
            groups,
            saved_groups,
            schedulers[name] if isinstance(schedulers, dict) else schedulers,
            list(states.get(name, ()) if isinstance(states, Mapping) else states),
        )
    if optimizers and (schedulers or states):  # mmengine takes the states from here
        lists = {name: optimizer.states for name, optimizer in optimizers.items()}
        checkpoint["param_schedulers"] = lists if several else lists[""]
    return list(optimizers.values())


def _at_start(group: Mapping) -> dict:
    """The settings of a group before the first step of the run."""
    settings = {k: v for k, v in group.items() if k not in ("params", "param_names")}
    for name in [name for name in settings if name.startswith("initial_")]:
        settings[name.removeprefix("initial_")] = settings.pop(name)
    if "betas" in settings and "momentum" in settings:  # scheduled through ``momentum``
        settings["betas"] = (settings.pop("momentum"), *settings["betas"][1:])
    return settings


def _constants(attributes: Mapping) -> dict:
    """The settings among a scheduler's attributes."""
    return {
        name: value
        for name, value in attributes.items()
        if name not in _PROGRESS and not callable(value)
    }


def _same(first: Any, second: Any) -> bool:
    """Whether two settings are equal, apart from the rounding of floats."""
    if isinstance(first, Tensor):
        first = first.item() if first.numel() == 1 else first.tolist()
    if isinstance(second, Tensor):
        second = second.item() if second.numel() == 1 else second.tolist()
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(
            _same(first[key], second[key]) for key in first
        )
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, numbers.Real) and isinstance(second, numbers.Real):
        return first == second or math.isclose(first, second, rel_tol=1e-9)
    return type(first) is type(second) and first == second


def _largest(groups: Iterable[Mapping]) -> float:
    return max((float(group["lr"]) for group in groups if "lr" in group), default=0.0)


def _step(schedulers: Iterable[Any], position: Position) -> None:
    """Step schedulers from the beginning as mmengine's ParamSchedulerHook does."""
    by_iteration = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    loud = [scheduler for scheduler in schedulers if scheduler.verbose]
    for scheduler in loud:
        scheduler.verbose = False
    with warnings.catch_warnings():  # of steps without the optimizer's
        warnings.simplefilter("ignore")
        for iteration in range(1, position.iterations + 1):
            for scheduler in by_iteration:
                scheduler.step()
            epoch, rest = divmod(iteration, position.length or math.inf)
            # The last iteration's epoch may not be completed.
            if not rest and epoch <= position.epochs:
                for scheduler in by_epoch:
                    scheduler.step()
    for scheduler in loud:
        scheduler.verbose = True


def _replace(optimizer: _Optimizer) -> None:
    """Replace the checkpoint's settings and states by those of the run."""
    for group, saved in zip(optimizer.groups, optimizer.saved, strict=True):
        for name in [n for n in saved if n not in ("params", "param_names")]:
            del saved[name]
        saved.update({k: v for k, v in group.items() if k != "params"})
    optimizer.states[:] = [s.state_dict() for s in optimizer.schedulers]


def _use_beside_metrics(
    optimizer: _Optimizer, settings: list[str], schedules: list[tuple[int, str]]
) -> None:
    """Use new settings beside a schedule that depends on past metrics.

    Nobody knows what such a schedule would have done with other settings. So only later
    ends, and settings that no scheduler changes, can be new.

    Raises:
        InputError: another setting is new.
    """
    wrong = [name for name in settings if name in ("lr", "momentum")]
    for number, name in schedules:
        later = name == "end" and number < len(optimizer.states)
        if later:
            scheduler, state = optimizer.schedulers[number], optimizer.states[number]
            done = state.get("_global_step", math.inf)
            later = "end" in state and min(scheduler.end, state["end"]) >= done
        if not later:
            wrong.append(name)
    if wrong:
        raise InputError(
            "--resume: the learning rate of this run follows the metrics of its "
            f"validations (ReduceOnPlateau), and {few(sorted(set(wrong)))} cannot be "
            f"changed in the middle of it. {_OTHER_RUN}"
        )
    for group, saved in zip(optimizer.groups, optimizer.saved, strict=True):
        fresh = _at_start(group)
        saved.update({k: fresh[k] for k in settings if k in group})
    for number, name in schedules:
        optimizer.states[number] = {
            **optimizer.states[number],
            name: getattr(optimizer.schedulers[number], name),
        }


def _check_rates(
    runner: Runner, optimizers: list[_Optimizer], position: Position
) -> None:
    """Raise an InputError if the schedules have ended with a learning rate of 0."""
    for optimizer in optimizers:
        first = _largest(map(_at_start, optimizer.saved))
        if optimizer.by_metric() or _largest(optimizer.saved) > _NOTHING * first:
            return
        for scheduler in optimizer.schedulers:
            done = position.epochs if scheduler.by_epoch else position.iterations
            if scheduler.end > done:
                return
    raise InputError(
        f"--resume: the learning rate is 0 from iteration {position.iterations} to the "
        f"end, iteration {position.end}: {_ends(runner)}. Make the schedule as long as "
        "the run with --cfg-options"
    )


def _ends(runner: Runner) -> str:
    """The settings that say how long a config's schedules are."""
    schedules = runner.cfg.get("param_scheduler") or []
    numbered = (
        schedules.items()
        if isinstance(schedules, dict) and "type" not in schedules
        else enumerate(
            schedules if isinstance(schedules, list | tuple) else [schedules]
        )
    )
    lengths = [
        f"param_scheduler.{number}.{name}={schedule[name]}"
        for number, schedule in numbered
        if isinstance(schedule, dict)
        for name in ("end", "T_max", "total_iters", "milestones")
        if name in schedule
    ]
    return f"the config has {few(lengths, 6)}" if lengths else "its schedule is over"
