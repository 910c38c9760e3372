"""Fits the length of training to the size of the data."""

import math

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import print_log

# Without --epochs, training shows the model about this many images in all. It takes
# at least the 36 epochs of the papers' recipes. Beyond 300 epochs, models overfit
# small data sets.
IMAGES_SEEN = 60_000
MIN_EPOCHS, MAX_EPOCHS = 36, 300
VALIDATIONS = 20  # in a run
WARMUP = 0.1  # the longest warmup, as a fraction of the run


def use_schedule(cfg: Config, images: int, epochs: int | None) -> None:
    """Fit training's length, its learning-rate schedule and its validations.

    Every scheduler keeps its shape: what happens at a third of the config's
    training happens at a third of this one.

    Args:
        images: the number of images in the training split.
        epochs: None sizes them from ``images``.
    """
    from_data = epochs is None
    if epochs is None:
        epochs = min(max(MIN_EPOCHS, math.ceil(IMAGES_SEEN / images)), MAX_EPOCHS)
    batch = cfg.train_dataloader.batch_size * get_world_size()
    steps = math.ceil(images / batch)
    loop = cfg.train_cfg
    by_epoch = "max_epochs" in loop
    key = "max_epochs" if by_epoch else "max_iters"
    before, loop[key] = loop[key], epochs if by_epoch else epochs * steps
    interval = max(1, epochs // VALIDATIONS)
    loop.val_interval = interval if by_epoch else interval * steps
    hook = cfg.default_hooks.checkpoint
    hook.update(by_epoch=by_epoch, interval=loop.val_interval)

    schedulers = cfg.get("param_scheduler") or []
    warmup = ""
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        planned = scheduler.get("end")
        if scheduler.get("by_epoch", True) == by_epoch:
            _scale(scheduler, loop[key] / before)
        elif not by_epoch:
            continue  # mmengine refuses epochs in a loop of iterations, with a message
        elif scheduler.get("end", math.inf) > WARMUP * epochs * steps:
            _scale(scheduler, WARMUP * epochs * steps / scheduler.end)
        if "start_factor" in scheduler and scheduler.end != planned:
            warmup = f", warm-up: {without_pinned_rate(scheduler)} ({planned} before)"
    print_log(
        f"schedule: epochs: {epochs}, steps an epoch: {steps} ({images} images, "
        f"{batch} a step){warmup}"
        + ("; sized from the data: --epochs changes it" if from_data else ""),
        "current",
    )


def without_pinned_rate(scheduler: dict) -> str:
    """Leave a warm-up out that is too short to end, and say how long it is.

    mmengine's LinearLR of one step sets the low rate in that step, and raises it in
    none: the rate stays low for the whole run.

    Args:
        scheduler: of a warm-up, with ``end`` and ``start_factor``.

    >>> without_pinned_rate(dict(type="LinearLR", start_factor=0.01, end=1))
    'none'
    """
    length = scheduler["end"] - scheduler.get("begin", 0)
    if length < 2:
        scheduler["start_factor"] = 1.0
        return "none"
    return f"{length} {'epochs' if scheduler.get('by_epoch', True) else 'steps'}"


def _scale(scheduler: dict, factor: float) -> None:
    """Multiply every length and point in time of a scheduler by ``factor``."""

    def scaled(value: int) -> int:
        return max(1, round(value * factor)) if value else value

    for key in ("begin", "end", "T_max", "total_iters", "step_size"):
        if isinstance(scheduler.get(key), int):
            scheduler[key] = scaled(scheduler[key])
    if "end" in scheduler:  # a scheduler lasts one step or epoch at least
        scheduler["end"] = max(scheduler["end"], scheduler.get("begin", 0) + 1)
    if "milestones" in scheduler:
        scheduler["milestones"] = sorted({scaled(m) for m in scheduler["milestones"]})
