"""Logs the last iteration of a run, and fits the warm-up to a short run.

mmengine logs every ``interval`` iterations, 50 in the toolboxes' configs. Of a run by
iterations, it does not log the last one, so a run of 4 iterations ends without a loss,
or with that of an early iteration. And the warm-up of a recipe, 500 iterations or more,
can take most of a short run or all of it.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import EpochBasedTrainLoop, Runner

from convnext_dense.datasets.custom.schedule import WARMUP, without_pinned_rate

MOST = 0.5  # of a run; a longer warm-up is shortened to WARMUP of it


class ShortRunHook(Hook):
    """Logs the last iteration of a run, and warns of a warm-up that is too long."""

    def before_run(self, runner: Runner) -> None:
        """Make mmengine's LoggerHook log the last iteration."""
        for hook in runner.hooks:
            if isinstance(hook, LoggerHook):
                hook.every_n_inner_iters = _or_last(runner, hook)

    def before_train(self, runner: Runner) -> None:
        """Warn of a warm-up that is longer than the run."""
        schedulers = getattr(runner, "strategy", runner).param_schedulers or []
        lists = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
        for scheduler in itertools.chain.from_iterable(lists):
            unit, length = "iterations", runner.max_iters
            if scheduler.by_epoch:
                unit, length = "epochs", runner.max_epochs
            if scheduler.end > length and _is_warmup(scheduler):
                runner.logger.warning(
                    f"the warm-up of the learning rate takes {scheduler.end} {unit}, "
                    f"and the run {length}: the full learning rate is not reached. "
                    "Lower param_scheduler.N.end"
                )


def fit_warmup(runner: Runner, settings: Mapping[str, Any]) -> list[str]:
    """Shorten a warm-up that would take most of a run.

    The warm-up counts iterations. A run has few of them if its data is small, or if the
    command line makes it short. A warm-up that the command line sets stays, and so does
    that of a config that counts iterations and keeps its length.

    Args:
        runner: has not built its schedulers yet.
        settings: of the command line, by their keys with dots.

    Returns:
        What the log says of the change, if there is one.
    """
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    schedulers: Any = runner.param_schedulers
    if isinstance(schedulers, dict) and "type" in schedulers:
        schedulers = [schedulers]
    if (
        any(key.startswith("param_scheduler") for key in settings)
        or not (by_epoch or "train_cfg.max_iters" in settings)
        or not isinstance(schedulers, list)
    ):
        return []
    length = runner.max_iters
    end = max((_warmup_end(scheduler) for scheduler in schedulers), default=0)
    if end <= MOST * length:
        return []
    new = max(1, round(WARMUP * length))
    said = index = None
    for number, scheduler in enumerate(schedulers):
        if not scheduler.get("by_epoch", True):
            for key in ("begin", "end"):
                if scheduler.get(key) == end:
                    scheduler[key] = new
        if _warmup_end(scheduler) == new:
            said, index = without_pinned_rate(scheduler), number
    return [
        f"warm-up of the learning rate: {said} (config: {end} steps, more than half of "
        f"this run's {length}). --cfg-options param_scheduler.{index}.end=STEPS sets it"
    ]


def _warmup_end(scheduler: Any) -> int:
    """The iteration at which a scheduler's config ends a warm-up; 0 if it is none."""
    if (
        scheduler.get("by_epoch", True)
        or scheduler.get("begin", 0)
        or "start_factor" not in scheduler
    ):
        return 0
    return int(scheduler.get("end") or 0)


def _or_last(runner: Runner, hook: LoggerHook) -> Any:
    """``hook.every_n_inner_iters``, which is also true at the last training step."""
    every = hook.every_n_inner_iters

    def every_or_last(batch_idx: int, interval: int) -> bool:
        training = runner.message_hub.get_info("loop_stage", "train") == "train"
        return every(batch_idx, interval) or (
            training and hook.is_last_train_iter(runner)
        )

    return every_or_last


def _is_warmup(scheduler: Any) -> bool:
    """Whether a scheduler raises the learning rate from the beginning of the run."""
    factor = getattr(scheduler, "start_factor", getattr(scheduler, "factor", None))
    quadratic = "QuadraticWarmup" in type(scheduler).__name__
    return (
        scheduler.begin == 0
        and scheduler.param_name == "lr"
        and not getattr(scheduler, "need_val_args", False)
        and (quadratic or (factor is not None and factor < 1))
    )
