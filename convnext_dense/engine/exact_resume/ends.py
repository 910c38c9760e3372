"""Checks how much a resumed run has left to train, and says so if it is nothing."""

from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.runner import Runner

from convnext_dense.errors import InputError


def check_length(done: int, more: bool, asked: int, by_epoch: bool) -> None:
    """Check that a command does not ask for less than the run has already.

    Args:
        done: completed epochs, or iterations.
        more: whether a further epoch has begun.
        asked: epochs or iterations of the command.
        by_epoch: whether the numbers are epochs.

    Raises:
        InputError: it asks for less.
    """
    if done > asked or (done == asked and more):
        unit = "epochs" if by_epoch else "iterations"
        amount = f"{done} {unit} and a part of the next" if more else f"{done} {unit}"
        raise InputError(
            f"--resume: the run has {amount} already, and this run ends at {asked}: "
            f"raise {_length(by_epoch)}, or name an earlier checkpoint: --resume FILE"
        )


def check_loop(before: bool, now: bool) -> None:
    """Check that a resumed run counts epochs or iterations as before.

    Args:
        before, now: whether the checkpoint's run, and this run, count epochs.

    Raises:
        InputError: they differ.
    """
    if before != now:
        units = {True: "epochs (max_epochs)", False: "iterations (max_iters)"}
        raise InputError(
            f"--resume: the run trains by {units[before]}, and this config by "
            f"{units[now]}. Resume with a config that trains by {units[before]}. To "
            "start another run from the checkpoint's weights: --cfg-options "
            "load_from=FILE"
        )


def nothing_left(runner: Runner, by_epoch: bool) -> str | None:
    """What the log says if a run has all of its epochs or iterations."""
    loop = runner.train_loop
    done, asked = (
        (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    )
    if done < asked:
        return None
    unit = "epochs" if by_epoch else "iterations"
    return (
        f"nothing is left to train: the run has all of its {asked} {unit}. To train "
        f"longer, raise {_length(by_epoch)}"
    )


def stopped_early(runner: Runner, by_epoch: bool) -> str:
    """What the log says of a run that a hook stopped before its end."""
    loop = runner.train_loop
    done, asked, unit = loop.iter, loop.max_iters, "iterations"
    if by_epoch:
        done, asked, unit = loop.epoch, loop.max_epochs, "epochs"
    text = (
        f"nothing is trained: the run was stopped early, after {done} of {asked} {unit}"
    )
    for option, hook in _options(runner):
        return (
            f"{text}, by {type(hook).__name__}. To train on, change what stopped it: "
            f"--cfg-options {option}.{_setting(hook)}"
        )
    return (
        f"{text}. To start another run from its weights: --cfg-options load_from=FILE"
    )


def _setting(hook: EarlyStoppingHook) -> str:
    """The option that lets a run go on that the hook has stopped."""
    if hook.wait_count >= hook.patience:
        return f"patience={2 * hook.wait_count}"
    threshold = hook.stopping_threshold
    if threshold is not None and hook.rule_map[hook.rule](hook.best_score, threshold):
        return "stopping_threshold=None"
    return "check_finite=False"


def _options(runner: Runner) -> Iterator[tuple[str, EarlyStoppingHook]]:
    """The early stopping hooks of a run, with their place in the config."""
    default = runner.cfg.get("default_hooks") or {}
    custom = runner.cfg.get("custom_hooks") or []
    items: list[tuple[str, Any]] = [
        *((f"default_hooks.{name}", value) for name, value in default.items()),
        *((f"custom_hooks.{number}", value) for number, value in enumerate(custom)),
    ]
    for hook in _early_stopping(runner.hooks):
        for option, settings in items:
            if isinstance(settings, dict) and settings.get("type") in (
                type(hook).__name__,
                type(hook),
            ):
                yield option, hook


def _early_stopping(hooks: Iterable[Hook]) -> Iterator[EarlyStoppingHook]:
    return (hook for hook in hooks if isinstance(hook, EarlyStoppingHook))


def _length(by_epoch: bool) -> str:
    """The options that say how long a run trains."""
    if by_epoch:
        return "--epochs (custom data) or --cfg-options train_cfg.max_epochs"
    return "--epochs (custom data) or --cfg-options train_cfg.max_iters"
