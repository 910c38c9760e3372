"""Checks the state of a run in a checkpoint, before anything is loaded from it.

mmengine puts that state into its loops, optimizers, schedulers and message hub as it
is. This module checks types, ranges and sizes: a checkpoint of a run passes, and
one that was damaged or made by hand ends in a message that names the value.
``loaded_state`` compares it with the run's optimizers and schedulers. The state of
``ExactResumeHook`` is checked by ``engine.exact_resume.checked``.
"""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from convnext_dense.errors import InputError
from convnext_dense.utils.text import few

from .reading import as_dict

MOST_ITERATIONS = 2**53  # floats count exactly up to here
MOST_SEED = 2**32 - 1  # of NumPy's generator
MOST_CLASSES = 100_000
MOST_KEPT = 100_000  # checkpoints that a run has not removed
LONGEST_NAME = 10_000  # characters of a class name or a path
_NEEDED = {"meta", "optimizer"}


class _Wrong(Exception):
    """A value of the state is wrong; the message says which, and how."""


def checked(checkpoint: Any, source: str) -> Mapping:
    """The checkpoint of a run, after a check of all that mmengine resumes from.

    Args:
        checkpoint: the content of the file.
        source: the checkpoint's name, for messages.

    Raises:
        InputError: it is not the checkpoint of a run, or a value of its state is wrong.
    """
    checkpoint = as_dict(checkpoint, source)
    if not set(checkpoint) >= _NEEDED:
        raise InputError(
            f"--resume: {source} is not a checkpoint of a run: it has weights but no "
            "optimizer state. To start from its weights: --cfg-options load_from=FILE"
        )
    try:
        _check_meta(checkpoint["meta"])
        _check_message_hub(checkpoint.get("message_hub"))
        _check_optimizer(checkpoint["optimizer"], "optimizer")
        _check_schedulers(checkpoint.get("param_schedulers", []))
        _check_tensors(checkpoint.get("ema_state_dict", {}), "ema_state_dict")
    except _Wrong as wrong:
        raise InputError(
            f"--resume: {source} is damaged or was not written by a run: {wrong}. "
            "Resume from another checkpoint. To start from its weights alone: "
            "--cfg-options load_from=FILE"
        ) from wrong
    return checkpoint


def _require(right: bool, name: str, value: object, expected: str) -> None:
    """Raise ``_Wrong`` unless ``right``."""
    if not right:
        shown = few([repr(value)]) if _is_short(value) else f"a {type(value).__name__}"
        raise _Wrong(f"{name} is {shown}, not {expected}")


def _is_short(value: object) -> bool:
    """Whether a value's ``repr`` takes no time and no memory."""
    if isinstance(value, str):
        return len(value) <= LONGEST_NAME
    if isinstance(value, int):
        return value.bit_length() < 1000
    return value is None or isinstance(value, float)


def _items(value: Any, name: str) -> Iterable[tuple[str, Any]]:
    """The items of a dict with texts as keys."""
    _require(isinstance(value, Mapping), name, value, "a dict")
    for key in value:
        _require(isinstance(key, str), f"a key of {name}", key, "text")
    return value.items()


def _is_whole(value: object, most: int = MOST_ITERATIONS) -> bool:
    return type(value) is int and 0 <= value <= most


def is_number(value: object) -> bool:
    """Whether a value is a number, and not True or False."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _check_meta(meta: object) -> None:
    fields = dict(_items(meta, "meta"))
    for name in ("epoch", "iter"):
        _require(name in fields, f"meta.{name}", None, "a whole number")
        value = fields[name]
        _require(
            _is_whole(value),
            f"meta.{name}",
            value,
            "a whole number, 0 or more",
        )
    seed = fields.get("seed")
    _require(
        seed is None or _is_whole(seed, MOST_SEED),
        "meta.seed",
        seed,
        f"a whole number from 0 to {MOST_SEED}",
    )
    _check_dataset_meta(fields.get("dataset_meta"), "meta.dataset_meta")


def _check_dataset_meta(dataset_meta: object, name: str) -> None:
    """Check class names and colours, which mmengine compares and stores."""
    if dataset_meta is None:
        return
    for key, value in _items(dataset_meta, name):
        if key.lower() == "classes" and value is not None:
            _check_classes(value, f"{name}.{key}")


def _check_classes(classes: object, name: str) -> None:
    """Raise ``_Wrong`` unless it is a list of class names of bearable length."""
    _require(isinstance(classes, list | tuple), name, classes, "a list of names")
    assert isinstance(classes, list | tuple)
    if len(classes) > MOST_CLASSES:
        raise _Wrong(f"{name} has {len(classes)} names, more than {MOST_CLASSES}")
    for text in classes:
        _require(isinstance(text, str), f"an entry of {name}", text, "text")
        if len(text) > LONGEST_NAME:
            raise _Wrong(f"{name} has a name of {len(text)} characters")


_ENDS = ("max_epochs", "max_iters")
# The message hub's values that mmengine uses, by the beginning of their names.
_INFO: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("best_score", lambda v: is_number(v) and not math.isnan(v), "a number"),
    ("best_ckpt", lambda v: v is None or _is_path(v), "a path"),
    ("last_ckpt", lambda v: v is None or _is_path(v), "a path"),
    (
        "keep_ckpt_ids",
        lambda v: (
            isinstance(v, list) and len(v) <= MOST_KEPT and all(map(_is_whole, v))
        ),
        f"a list of at most {MOST_KEPT} whole numbers",
    ),
    ("epoch", _is_whole, "a whole number"),
    ("iter", _is_whole, "a whole number"),
    *((name, is_number, "a number") for name in _ENDS),
    ("eta", is_number, "a number"),
)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME and "\0" not in value


def _check_message_hub(hub: object) -> None:
    """Check the message hub; the unpickler has checked its histories."""
    fields = dict(_items(hub, "message_hub"))
    for name in ("log_scalars", "runtime_info", "resumed_keys"):
        _items(fields.get(name), f"message_hub.{name}")
    for name, value in fields["resumed_keys"].items():
        setting = f"message_hub.resumed_keys.{name}"
        # With False for one of its own keys, mmengine would stop in the first step.
        custom = "/" not in name and name not in ("epoch", "iter", *_ENDS)
        right = value is True or (custom and value is False)
        _require(right, setting, value, "True")
    for name, value in fields["runtime_info"].items():
        setting = f"message_hub.runtime_info.{name}"
        if name == "dataset_meta":
            _check_dataset_meta(value, setting)
        for beginning, is_right, expected in _INFO:
            # best_score_METRIC, with several metrics
            if name == beginning or name.startswith(f"{beginning}_"):
                _require(is_right(value), setting, value, expected)


def is_plain(value: object) -> bool:
    """Whether it is what an optimizer or a scheduler has for a setting."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, Tensor):
        return value.numel() == 1
    return value is None or isinstance(value, str | bool | numbers.Real)


def _check_optimizer(state: object, name: str) -> None:
    """Check the state of an optimizer wrapper, or of several by name."""
    fields = dict(_items(state, name))
    if "param_groups" not in fields:
        if not fields:
            raise _Wrong(f"{name} is empty")
        for key, value in fields.items():
            if name != "optimizer":
                raise _Wrong(f"{name} has no param_groups")
            _check_optimizer(value, f"{name}.{key}")
        return
    groups, states = fields["param_groups"], fields.get("state", {})
    _require(isinstance(groups, list | tuple), f"{name}.param_groups", groups, "a list")
    for group in groups:
        settings = dict(_items(group, f"an entry of {name}.param_groups"))
        params = settings.pop("params", None)
        _require(
            isinstance(params, list | tuple)
            and all(isinstance(key, int | str) for key in params),
            f"params of {name}.param_groups",
            params,
            "a list of numbers",
        )
        for key, value in settings.items():
            _require(
                is_plain(value), f"{key} of {name}.param_groups", value, "a setting"
            )
    _require(isinstance(states, Mapping), f"{name}.state", states, "a dict")
    for key, value in states.items():
        for field, number in _items(value, f"{name}.state[{few([key])}]"):
            _require(
                isinstance(number, Tensor | Mapping) or is_plain(number),
                f"{field} of {name}.state",
                number,
                "a tensor or a number",
            )
    for field in ("loss_scaler", "base_param_settings"):
        for key, value in _items(fields.get(field, {}), f"{name}.{field}"):
            right = key == "params" or is_plain(value)
            _require(right, f"{name}.{field}.{key}", value, "a number")
    scale = fields.get("loss_scaler", {}).get("scale", 1.0)
    right = is_number(scale) and 0 < scale < math.inf
    _require(right, f"{name}.loss_scaler.scale", scale, "a positive number")


def _check_tensors(tensors: object, name: str) -> None:
    """Raise ``_Wrong`` unless it is a dict from names to tensors."""
    for key, value in _items(tensors, name):
        _require(isinstance(value, Tensor), f"{name}.{key}", value, "a tensor")


def _check_schedulers(schedulers: Any) -> None:
    """Check the schedulers' states: one list, or a list for each optimizer."""
    lists = (
        dict(_items(schedulers, "param_schedulers"))
        if isinstance(schedulers, Mapping)
        else {"": schedulers}
    )
    for states in lists.values():
        _require(isinstance(states, list | tuple), "param_schedulers", states, "a list")
        for state in states:
            _items(state, "an entry of param_schedulers")
