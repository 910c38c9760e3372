"""Logs the last iteration of a run, and warns of a warm-up longer than the run.

mmengine logs every ``interval`` iterations, 50 in the toolboxes' configs. Of a run by
iterations, it does not log the last one, so a run of 4 iterations ends without a loss,
or with that of an early iteration. And a warm-up that is longer than the run keeps the
learning rate low without a word.
"""

import itertools
from typing import Any

from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner


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
