"""Continues a run with a config that differs from the checkpoint's, and says so."""

from typing import Any

from mmengine.runner import Runner

from convnext_dense.utils.text import few

from . import ends
from .differences import differences
from .schedules import Position, use_new_settings


def use(
    runner: Runner, checkpoint: dict, state: dict | None, by_epoch: bool, batch: int
) -> None:
    """Write this run's settings into a checkpoint, and log what differs.

    Args:
        runner: has built its optimizers and schedulers, and not loaded anything.
        checkpoint: of the run; ``run_state`` has checked it.
        state: of ``ExactResumeHook`` in it, checked; None if it has none.
        by_epoch: whether this run counts epochs.
        batch: images a step, of all processes, of this run.

    Raises:
        InputError: the run cannot continue with this config.
    """
    meta, loop = checkpoint["meta"], runner.train_loop
    epochs, iterations = meta["epoch"], meta["iter"]
    if state and "by_epoch" in state:
        ends.check_loop(state["by_epoch"], by_epoch)
    length, moved = None, False
    if by_epoch:
        more = bool(state and state["samples"])
        ends.check_length(epochs, more, loop.max_epochs, True)
        length = len(loop.dataloader)
        if state:
            iterations = epochs * length + state["samples"] // batch
            moved = state["batch"] != batch or iterations != meta["iter"]
    else:
        epochs = 0
        ends.check_length(iterations, False, loop.max_iters, False)
    before: Any = meta.get("cfg")
    known = isinstance(before, str)
    different = differences(before, runner.cfg.pretty_text) if known else []
    if (
        known
        and not different
        and not moved
        and not _scales_otherwise(runner, state, batch)
    ):
        return
    position = Position(epochs, iterations, length, loop.max_iters)
    change = use_new_settings(runner, checkpoint, position, moved)
    names = different or (change.names if change else [])
    if not names:
        return
    text = "the optimizer and the schedules continue as they were"
    if change:
        now, before = f"{change.now:.4g}", f"{change.before:.4g}"
        rate = f"stays {now}" if now == before else f"is {now} and was {before}"
        text = (
            "the schedules are this config's, as if it had been used from the start: "
            f"the next learning rate {rate}"
        )
    runner.logger.warning(
        "the run continues with another config than the checkpoint's: "
        f"{few(names, 10)}; {text}"
    )


def _scales_otherwise(runner: Runner, state: dict | None, batch: int) -> bool:
    """Whether the config scales the learning rate by another number of images."""
    scaled = (getattr(runner, "auto_scale_lr", None) or {}).get("enable")
    return bool(scaled and state and state["batch"] != batch)
