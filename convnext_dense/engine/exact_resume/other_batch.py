"""Continues a run whose steps have another size than before.

Most often the reason is another number of processes.
"""

from mmengine.hooks import IterTimerHook
from mmengine.runner import EpochBasedTrainLoop, Runner


def adapt(runner: Runner, before: int, now: int, batches: int) -> None:
    """Convert the position of an epoch-based run to steps of the new size.

    ``schedules`` has put the learning rate and the schedules there. Iteration-based
    runs keep their count. Without a change, do nothing.

    Args:
        before: images a step, of all processes, before the stop.
        now: images a step, of all processes, from now on.
        batches: how many batches of the epoch have been used.
    """
    loop = runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    length = len(loop.dataloader)
    iteration = loop.epoch * length + batches if by_epoch else loop.iter
    if now == before and iteration == loop.iter:
        return
    scaled = (getattr(runner, "auto_scale_lr", None) or {}).get("enable")
    change = "learning rate and number of steps do not change"
    if by_epoch or scaled:
        scale = now / before if scaled else 1.0
        change = f"the learning rate is multiplied by {scale:g}"
    if by_epoch:
        loop._iter = iteration
        for hook in runner.hooks:
            if isinstance(hook, IterTimerHook):  # it noted the first iteration before
                hook.before_train(runner)
        runner.optim_wrapper.initialize_count_status(
            runner.model, loop.iter, loop.max_iters
        )
    what = f"this run uses {now} images a step instead of {before}"
    if now == before:
        what = f"an epoch of this run has {length} steps, which is another number"
    runner.logger.warning(
        f"{what}: it continues after the images that it has already used; {change}"
    )
