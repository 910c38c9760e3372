"""Checks the state of a run in a checkpoint, before the run goes on from it.

mmengine puts that state into its loops, optimizers, schedulers and message hub as it
is. What is checked here are types, ranges and sizes: a checkpoint of a run passes, and
one that was damaged or made by hand ends in a message that names the value.
"""

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict
from torch import Tensor
from torch.optim import Optimizer

from convnext_dense.errors import InputError
from convnext_dense.utils.text import few

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
    if not isinstance(checkpoint, Mapping):
        raise InputError(f"{source} holds a {type(checkpoint).__name__}, not weights")
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
        _check_exact(checkpoint.get("exact_resume"))
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


def _is_number(value: object) -> bool:
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
            check_classes(value, f"{name}.{key}")


def check_classes(classes: object, name: str) -> None:
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
    ("best_score", lambda v: _is_number(v) and not math.isnan(v), "a number"),
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
    *((name, _is_number, "a number") for name in _ENDS),
    ("eta", _is_number, "a number"),
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


def _is_plain(value: object) -> bool:
    """Whether it is what an optimizer or a scheduler has for a setting."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
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
                _is_plain(value), f"{key} of {name}.param_groups", value, "a setting"
            )
    _require(isinstance(states, Mapping), f"{name}.state", states, "a dict")
    for key, value in states.items():
        for field, number in _items(value, f"{name}.state[{few([key])}]"):
            _require(
                isinstance(number, Tensor | Mapping) or _is_plain(number),
                f"{field} of {name}.state",
                number,
                "a tensor or a number",
            )
    for field in ("loss_scaler", "base_param_settings"):
        for key, value in _items(fields.get(field, {}), f"{name}.{field}"):
            right = key == "params" or _is_plain(value)
            _require(right, f"{name}.{field}.{key}", value, "a number")
    scale = fields.get("loss_scaler", {}).get("scale", 1.0)
    right = _is_number(scale) and 0 < scale < math.inf
    _require(right, f"{name}.loss_scaler.scale", scale, "a positive number")


def _check_tensors(tensors: object, name: str) -> None:
    """Raise ``_Wrong`` unless it is a dict from names to tensors."""
    for key, value in _items(tensors, name):
        _require(isinstance(value, Tensor), f"{name}.{key}", value, "a tensor")


def _check_exact(state: object) -> None:
    """Check the state of ``engine.exact_resume``, where the checkpoint has one."""
    if state is None:
        return
    fields = dict(_items(state, "exact_resume"))
    for name, least in (("samples", 0), ("batch", 1), ("seed", 0), ("sampler_seed", 0)):
        value: Any = fields.get(name)
        right = _is_whole(value) and value >= least
        if name == "sampler_seed":
            right = right or value is None
        _require(
            right, f"exact_resume.{name}", value, f"a whole number from {least} on"
        )
    value = fields.get("validated")
    _require(isinstance(value, bool), "exact_resume.validated", value, "True or False")
    _check_tensors(fields.get("gradients"), "exact_resume.gradients")
    states: Any = fields.get("random_states")
    _require(isinstance(states, list), "exact_resume.random_states", states, "a list")
    for generators in states:
        names = dict(_items(generators, "an entry of exact_resume.random_states"))
        right = (
            isinstance(names.get("python"), tuple | list)
            and len(names["python"]) == 3
            and isinstance(names.get("numpy"), tuple | list | Mapping)
            and isinstance(names.get("torch"), Tensor)
            and isinstance(names.get("cuda", names["torch"]), Tensor)
        )
        _require(right, "exact_resume.random_states", states, "states of generators")


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


def scheduler_state(current: Mapping, saved: Mapping, name: str) -> dict:
    """The part of a scheduler's saved state that has the current state's form.

    mmengine would replace any attribute of a scheduler, also its methods.

    Args:
        current: the attributes of the scheduler.
        saved: its state in the checkpoint.
        name: of the scheduler, for messages.

    Returns:
        Values for attributes that the scheduler has, except its optimizer and methods.

    Raises:
        InputError: a value is of another type than the scheduler's.
    """
    state = {}
    for key, value in saved.items():
        if key not in current or key == "optimizer" or callable(current[key]):
            continue
        if not _is_like(value, current[key]):
            raise InputError(
                f"--resume: the checkpoint is damaged or was not written by a run: "
                f"{key} of the {name} is a {type(value).__name__}, not a "
                f"{type(current[key]).__name__}. Resume from another checkpoint"
            )
        state[key] = value
    return state


def _is_like(value: object, current: object) -> bool:
    """Whether ``value`` can take the place of ``current``."""
    if current is None:
        return _is_plain(value)
    if isinstance(current, bool | str):
        return type(value) is type(current)
    if _is_number(current) or (isinstance(current, Tensor) and current.numel() == 1):
        return (_is_number(value) or isinstance(value, Tensor)) and _is_plain(value)
    if isinstance(current, Mapping):
        return (
            isinstance(value, Mapping)
            and value.keys() == current.keys()
            and all(_is_like(value[key], current[key]) for key in current)
        )
    if isinstance(current, list | tuple):
        if not isinstance(value, list | tuple):
            return False
        if current and all(map(_is_number, current)):
            return all(map(_is_number, value))
        return len(value) == len(current) and all(map(_is_like, value, current))
    return isinstance(value, type(current)) or isinstance(current, type(value))


def check_optimizers(wrapper: Any, source: str) -> None:
    """Check that optimizers can take a step with the state that was loaded.

    Args:
        wrapper: mmengine's optimizer wrapper, or several in an ``OptimWrapperDict``.
        source: the checkpoint's name, for messages.

    Raises:
        InputError: a setting or a tensor of the state does not suit the optimizer.
    """
    if isinstance(wrapper, OptimWrapperDict):
        for inner in wrapper.optim_wrappers.values():
            check_optimizers(inner, source)
        return
    optimizer = getattr(wrapper, "optimizer", None)
    if not isinstance(optimizer, Optimizer):
        return
    for group in optimizer.param_groups:
        for name, default in optimizer.defaults.items():
            if name not in group and not _is_torchs(optimizer):
                continue
            if name not in group or not _is_like(group[name], default):
                raise InputError(
                    f"--resume: {source} is damaged or was not written by a run: "
                    f"{name} of its optimizer is "
                    f"{few([repr(group.get(name))])}. Resume from another checkpoint"
                )
    like = _example(optimizer)
    for parameter, state in optimizer.state.items():
        if not isinstance(state, Mapping) or not state or not like:
            continue
        for name, example in like.items():
            value = state.get(name)
            as_parameter = isinstance(example, Tensor) and example.numel() == 6
            right = (
                isinstance(value, Tensor) and value.shape == parameter.shape
                if as_parameter
                else _is_like(value, example)
            )
            if not right:
                raise InputError(
                    f"--resume: {source} is damaged or was not written by a run: "
                    f"{name} of its optimizer's state is of another shape or type than "
                    "the model's parameter. Resume from another checkpoint"
                )


def _is_torchs(optimizer: Optimizer) -> bool:
    return type(optimizer).__module__.startswith("torch.optim")


def _example(optimizer: Optimizer) -> dict:
    """The state of one parameter (2, 3) after a step of one of torch's optimizers.

    It is empty for an optimizer of another library.
    """
    if not _is_torchs(optimizer):
        return {}
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    parameter.grad = torch.zeros(2, 3)
    known = set(inspect.signature(type(optimizer)).parameters) - {"fused"}
    settings = {k: v for k, v in optimizer.defaults.items() if k in known}
    try:
        twin = type(optimizer)([parameter], **settings)
        twin.step()
    except (RuntimeError, TypeError, ValueError):  # needs a GPU, or a closure
        return {}
    return dict(twin.state[parameter])
