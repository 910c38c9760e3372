"""Continues a run with another number of images a step.

Most often the reason is another number of processes.
"""

from collections.abc import Iterable

from mmengine.hooks import IterTimerHook
from mmengine.runner import EpochBasedTrainLoop, Runner


def adapt(runner: Runner, before: int, now: int, batches: int) -> None:
    """Convert the position of an epoch-based run to steps of the new size.

    The schedules of learning rate and momentum count steps, and would end too early or
    too late: they are built again and stepped to this position. The learning rate is
    scaled if the config has ``auto_scale_lr`` on. Iteration-based runs keep their
    count.

    Args:
        before: images a step, of all processes, before the stop.
        now: images a step, of all processes, from now on.
        batches: how many batches of the epoch have been used.
    """
    loop = runner.train_loop
    scale, change = 1.0, "learning rate and number of steps do not change"
    if isinstance(loop, EpochBasedTrainLoop):
        if (runner.auto_scale_lr or {}).get("enable"):
            scale = now / before
        change = f"the learning rate is multiplied by {scale:g}"
        length = len(loop.dataloader)
        loop._iter = loop.epoch * length + batches
        for hook in runner.hooks:
            if isinstance(hook, IterTimerHook):  # it noted the first iteration before
                hook.before_train(runner)
        _restart(runner.optim_wrapper.param_groups, scale)
        if runner.param_schedulers:
            _step(runner, min(loop.iter, loop.max_iters), length)
        runner.optim_wrapper.initialize_count_status(
            runner.model, loop.iter, loop.max_iters
        )
    runner.logger.warning(
        f"this run uses {now} images a step instead of {before}: it continues after "
        f"the images that it has already used; {change}"
    )


def _restart(groups: Iterable[dict], scale: float) -> None:
    """Restore the initial values of the groups; multiply the rates by ``scale``."""
    for group in groups:
        if "initial_lr" in group:
            group["initial_lr"] *= scale
        for name in list(group):
            if name.startswith("initial_"):
                group[name.removeprefix("initial_")] = group[name]


def _step(runner: Runner, iterations: int, length: int) -> None:
    """Build the schedules again, and step them as mmengine's ParamSchedulerHook does.

    Args:
        iterations: of the whole run so far.
        length: of an epoch, in iterations.
    """
    schedulers = runner.build_param_scheduler(runner.cfg.param_scheduler)
    for iteration in range(1, iterations + 1):
        for scheduler in schedulers:
            if not scheduler.by_epoch or iteration % length == 0:
                scheduler.step()
    runner.param_schedulers = schedulers
