"""Saves and restores what hooks remember from one validation or step to the next.

A hook with ``state_dict`` and ``load_state_dict`` is saved by them. Of the toolboxes'
own hooks, these keep values during training:

- EarlyStoppingHook: its count and its best score, which are saved here;
- CheckpointHook: best score and names of files, which mmengine's message hub keeps;
- EMAHook: averaged weights, which it saves itself;
- MeanTeacherHook: the teacher's weights, which are in the model;
- PipelineSwitchHook, YOLOXModeSwitchHook: a switch of the data, which they make again
  in a resumed run, since the data is built again;
- IterTimerHook, RuntimeInfoHook, LoggerHook, SyncBuffersHook, ProfilerHook and the
  visualization hooks: times, names and numbers of pictures, which change no training.

Of another hook without the two methods, only the names of the attributes that changed
are saved, so that a resumed run can say what begins anew.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, EMAHook, Hook

from convnext_dense.checkpoints.run_state import MOST_ITERATIONS, is_number
from convnext_dense.errors import InputError
from convnext_dense.utils.text import few, reason

_TOOLBOXES = ("mmengine", "mmdet", "mmseg", "convnext_dense")
# Settings that decide when EarlyStoppingHook stops.
SETTINGS = (
    *("monitor", "rule", "min_delta", "patience"),
    *("stopping_threshold", "check_finite"),
)
_DEEPEST = 20  # levels of dicts and lists in a state


class Memory:
    """What the hooks of a run remember.

    Args:
        hooks: of the run.
    """

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self._hooks: dict[str, Hook] = {}
        for hook in hooks:
            name, number = type(hook).__name__, 1
            while name in self._hooks:
                number += 1
                name = f"{type(hook).__name__} {number}"
            self._hooks[name] = hook
        self._before: dict[str, dict] = {}

    def begin(self) -> list[str]:
        """Note the values with which the hooks begin to train.

        Returns:
            What the log should say of hooks that cannot be saved.
        """
        self._before = {name: _plain(hook) for name, hook in self._unknown().items()}
        return [
            f"checkpoints will not have the state of the hook {name}: its state_dict "
            "holds more than numbers, text, lists, dicts and tensors"
            for name, hook in self._hooks.items()
            if _has_protocol(hook) and not is_data(_as_data(hook.state_dict()))
        ]

    def _unknown(self) -> dict[str, Hook]:
        """Hooks of other projects that cannot be saved."""
        return {
            name: hook
            for name, hook in self._hooks.items()
            if not _is_kept(hook)
            and type(hook).__module__.partition(".")[0] not in _TOOLBOXES
        }

    def kept(self) -> list[Hook]:
        """The hooks whose values are saved."""
        return [hook for hook in self._hooks.values() if _is_kept(hook)]

    def capture(self) -> dict[str, dict]:
        """The hooks' values as plain data, by the hook's name."""
        result: dict[str, dict] = {}
        for name, hook in self._hooks.items():
            if _has_protocol(hook):
                state = _as_data(hook.state_dict())
                if is_data(state):
                    result[name] = dict(state=state)
            elif isinstance(hook, EarlyStoppingHook):
                score = float(hook.best_score)  # a metric can be a tensor
                state = dict(wait_count=hook.wait_count, best_score=score)
                settings = {key: getattr(hook, key) for key in SETTINGS}
                result[name] = dict(state=_as_data(state), settings=_as_data(settings))
        for name, hook in self._unknown().items():
            now, before = _plain(hook), self._before.get(name, {})
            changed = [key for key in now if now[key] != before.get(key)]
            if changed:
                result[name] = dict(changed=changed)
        return result

    def restore(self, saved: Mapping[str, Mapping] | None) -> list[str]:
        """Put saved values back into the hooks.

        Args:
            saved: as ``capture`` returned them; None if the checkpoint has none.

        Returns:
            What the log should say of hooks that begin anew.

        Raises:
            InputError: a value is not what the hook keeps.
        """
        anew, lines = [], []
        for name, hook in self._hooks.items():
            entry = (saved or {}).get(name, {})
            state = entry.get("state")
            if _is_kept(hook) and state is None:
                anew.append(name)
            elif _has_protocol(hook):
                try:
                    hook.load_state_dict(state)
                except Exception as error:  # the hook can raise anything
                    raise InputError(
                        f"--resume: the hook {name} cannot use its state in the "
                        f"checkpoint ({reason(error)}). Resume with the hook as it "
                        "was, or remove it from custom_hooks"
                    ) from error
            elif isinstance(hook, EarlyStoppingHook):
                _restore_early_stopping(hook, state, entry.get("settings"), name)
            elif isinstance(entry.get("changed"), list):
                lines.append(
                    f"the hook {name} has no state_dict and load_state_dict: its "
                    f"{few(entry['changed'])} begin anew in this resumed run"
                )
        if anew:
            lines.append(
                f"the checkpoint has no state of {few(anew)}, which begins anew"
            )
        return lines

    def lifted(self, saved: Mapping[str, Mapping]) -> bool:
        """Whether an EarlyStoppingHook has other settings than in the checkpoint."""
        for name, entry in saved.items():
            settings = entry.get("settings")
            hook = self._hooks.get(name)
            if settings is not None and (
                hook is None
                or any(
                    settings.get(key) != getattr(hook, key, None) for key in SETTINGS
                )
            ):
                return True
        return False


def come_last(hooks: list[Hook], kept: list[Hook], last: Hook) -> list[Hook]:
    """Order hooks so that a checkpoint is written when all of them have counted.

    mmengine's CheckpointHook runs before EarlyStoppingHook: a checkpoint of the best
    metric would lack the count of the validation that it belongs to.

    Args:
        hooks: of a run, in their order.
        kept: those whose values are saved.
        last: the hook that stops runs.

    Returns:
        The same hooks; CheckpointHooks and ``last`` are at the end if needed.
    """
    writers = [hook for hook in hooks if isinstance(hook, CheckpointHook)]
    if not writers or not kept:
        return hooks
    moved = [*writers, last]
    if max(map(hooks.index, kept)) < hooks.index(writers[0]):
        return hooks
    return [hook for hook in hooks if hook not in moved] + moved


def use_training_weights(hooks: Iterable[Hook], checkpoint: dict) -> bool:
    """Replace averaged weights by the trained ones, if the run does not average.

    mmengine's EMAHook writes the averaged weights as ``state_dict``, and the trained
    ones as ``ema_state_dict``.

    Returns:
        Whether the checkpoint was changed.
    """
    trained = checkpoint.get("ema_state_dict")
    if not trained or any(isinstance(hook, EMAHook) for hook in hooks):
        return False
    weights = checkpoint["state_dict"]
    for name, value in trained.items():
        inner = name.removeprefix("module.")
        if inner != name and inner in weights:
            weights[inner] = value
    return True


def forget_other_best(hooks: Iterable[Hook], checkpoint: dict) -> str | None:
    """Remove the best score of a metric that the run does not follow any more.

    mmengine would compare the new metric with it, and might never save a best
    checkpoint again.

    Returns:
        What the log should say; None if nothing was removed.
    """
    info = checkpoint["message_hub"]["runtime_info"]
    best = Path(info.get("best_ckpt") or "").name
    for hook in hooks:
        keys = getattr(hook, "key_indicators", None) or []
        if not best or not isinstance(hook, CheckpointHook) or len(keys) != 1:
            continue
        key = keys[0]
        if key != "auto" and not best.startswith(f"best_{key.replace('/', '_')}_"):
            del info["best_ckpt"]
            info.pop("best_score", None)
            return (
                f"the checkpoint's best score is of another metric than {key}: the "
                f"search for the best begins anew, and {best} stays"
            )
    return None


def is_data(value: object, depth: int = 0) -> bool:
    """Whether a value consists of numbers, text, tensors, lists and dicts of them."""
    if depth > _DEEPEST:
        return False
    if isinstance(value, Mapping):
        return all(
            isinstance(key, str | int) and is_data(item, depth + 1)
            for key, item in value.items()
        )
    if isinstance(value, list | tuple):
        return all(is_data(item, depth + 1) for item in value)
    return value is None or isinstance(value, str | bool | int | float | torch.Tensor)


def _as_data(value: Any, depth: int = 0) -> Any:
    """A copy with numbers of NumPy as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if depth <= _DEEPEST:
        if isinstance(value, Mapping):
            return {key: _as_data(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [_as_data(item, depth + 1) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
        if isinstance(value, torch.Tensor):
            return value.detach().cpu().clone()
    return value


def _has_protocol(hook: Any) -> bool:
    return callable(getattr(hook, "state_dict", None)) and callable(
        getattr(hook, "load_state_dict", None)
    )


def _is_kept(hook: Hook) -> bool:
    return _has_protocol(hook) or isinstance(hook, EarlyStoppingHook)


def _plain(hook: Hook) -> dict[str, Any]:
    """The numbers and texts among a hook's attributes, and the lengths of its lists."""
    return {
        name: len(value) if isinstance(value, list | dict | set) else value
        for name, value in vars(hook).items()
        if isinstance(value, str | bool | int | float | list | dict | set)
    }


def _restore_early_stopping(
    hook: EarlyStoppingHook, state: Any, settings: Any, name: str
) -> None:
    """Restore the count of a hook, unless it now follows another metric."""
    count = state.get("wait_count") if isinstance(state, Mapping) else None
    score = state.get("best_score") if isinstance(state, Mapping) else None
    right = type(count) is int and 0 <= count <= MOST_ITERATIONS
    if not right or not is_number(score):
        raise InputError(
            f"--resume: the state of {name} in the checkpoint is damaged. Resume from "
            "another checkpoint"
        )
    known = settings if isinstance(settings, Mapping) else {}
    if all(known.get(key) == getattr(hook, key) for key in ("monitor", "rule")):
        hook.wait_count, hook.best_score = count, score
