"""Going on with another number of images a step than the run had: fewer or more
processes, most often."""

from mmengine.hooks import IterTimerHook
from mmengine.runner import EpochBasedTrainLoop, Runner


def adapt(runner: Runner, before: int, now: int, batches: int) -> None:
    """Put an epoch-based run where it is by epochs, in counts of its new steps.

    Its schedules of learning rate and momentum count steps, and would end too early
    or too late: they are begun again and stepped to this place. The learning rate is
    scaled if the run scales it by itself (``auto_scale_lr``). Training by iterations
    keeps its count.

    Args:
        before, now: images of a step, of all processes.
        batches: of the epoch that have been seen.
    """
    loop = runner.train_loop
    scale, kept = 1.0, "learning rate and number of steps are what they were"
    if isinstance(loop, EpochBasedTrainLoop):
        if (runner.auto_scale_lr or {}).get("enable"):
            scale = now / before
        kept = f"the learning rate is {scale:g} of what it was"
        length = len(loop.dataloader)
        loop._iter = loop.epoch * length + batches
        for hook in runner.hooks:
            if isinstance(hook, IterTimerHook):  # it has noted where the run begins
                hook.before_train(runner)
        _begin_again(runner.optim_wrapper.param_groups, scale)
        if runner.param_schedulers:
            _step(runner, loop.iter, length)
        runner.optim_wrapper.initialize_count_status(
            runner.model, loop.iter, loop.max_iters
        )
    runner.logger.warning(
        f"this run takes {now} images a step, and did {before} before: it goes on "
        f"after the images that it has seen; {kept}"
    )


def _begin_again(groups, scale: float) -> None:
    for group in groups:
        if "initial_lr" in group:
            group["initial_lr"] *= scale
        for name in list(group):
            if name.startswith("initial_"):
                group[name.removeprefix("initial_")] = group[name]


def _step(runner: Runner, iterations: int, length: int) -> None:
    """What mmengine's ParamSchedulerHook would have done."""
    schedulers = runner.build_param_scheduler(runner.cfg.param_scheduler)
    for iteration in range(1, iterations + 1):
        for scheduler in schedulers:
            if not scheduler.by_epoch or iteration % length == 0:
                scheduler.step()
    runner.param_schedulers = schedulers
