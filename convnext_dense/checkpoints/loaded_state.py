"""Checks that the optimizers and schedulers of a run can use a checkpoint's state.

``run_state`` has checked that state before; this module compares it with what the
run has built.
"""

import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict
from torch import Tensor
from torch.optim import Optimizer

from convnext_dense.errors import InputError
from convnext_dense.utils.text import few

from .run_state import is_number, is_plain

_ANOTHER_RUN = (
    "Use the config with which the run began. To start another run from the "
    "checkpoint's weights: --cfg-options load_from=FILE"
)


def scheduler_state(current: Mapping, saved: Mapping, name: str) -> dict:
    """The values of a scheduler's saved state that the scheduler may take.

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


def check_type(saved: Mapping, wrapper: Any) -> None:
    """Check, before a state is loaded, that it is of the run's type of optimizer.

    Args:
        saved: what the checkpoint has as ``optimizer``; ``run_state`` has checked it.
        wrapper: mmengine's optimizer wrapper, or several in an ``OptimWrapperDict``.

    Raises:
        InputError: it is the state of another type of optimizer.
    """
    for name, optimizer in _optimizers(wrapper).items():
        state = saved.get(name, {}) if name else saved
        _check_type(state.get("param_groups", ()), optimizer)


def check_optimizers(wrapper: Any, source: str) -> None:
    """Check that optimizers can take a step with the state that was loaded.

    Args:
        wrapper: as for ``check_type``.
        source: the checkpoint's name, for messages.

    Raises:
        InputError: it is the state of another type of optimizer, or a setting or a
            tensor does not suit the optimizer.
    """
    for optimizer in _optimizers(wrapper).values():
        _check_type(optimizer.param_groups, optimizer)
        for group in optimizer.param_groups:
            for name, default in optimizer.defaults.items():
                if not _is_like(group.get(name, default), default):
                    raise InputError(
                        f"--resume: {source} is damaged or was not written by a run: "
                        f"{name} of its optimizer is {few([repr(group[name])])}. "
                        "Resume from another checkpoint"
                    )
        example = functools.cache(functools.partial(_example, optimizer))
        for parameter, state in optimizer.state.items():
            if not isinstance(state, Mapping) or not state:
                continue
            dimensions = parameter.dim()
            for name, value in example(dimensions).items():
                if not _fits(state.get(name), value, parameter):
                    raise InputError(
                        f"--resume: {source} does not fit this run: {name} of its "
                        "optimizer's state is of another shape or type than "
                        f"{type(optimizer).__name__} needs for the model's parameter. "
                        + _ANOTHER_RUN
                    )


def _optimizers(wrapper: Any) -> dict[str, Optimizer]:
    """The optimizers of a wrapper, by name; '' if there is only one."""
    several = isinstance(wrapper, OptimWrapperDict)
    wrappers = wrapper.optim_wrappers if several else {"": wrapper}
    optimizers = {
        name: getattr(inner, "optimizer", None) for name, inner in wrappers.items()
    }
    return {n: inner for n, inner in optimizers.items() if isinstance(inner, Optimizer)}


def _check_type(groups: Iterable[Mapping], optimizer: Optimizer) -> None:
    """Raise an InputError if parameter groups lack a setting of the optimizer."""
    for group in groups:
        for name, default in optimizer.defaults.items():
            # Newer versions of PyTorch add switches: booleans, or None.
            if name not in group and not isinstance(default, bool | None):
                raise InputError(
                    f"--resume: the checkpoint's optimizer has no {name}, so it is not "
                    f"{type(optimizer).__name__}. {_ANOTHER_RUN}"
                )


def _example(optimizer: Optimizer, dimensions: int) -> dict:
    """The state of a parameter of 2 x 3 x 4 x ... after a step of such an optimizer.

    Some optimizers keep other tensors for a matrix than for a vector. The result is
    empty if the optimizer cannot be built so.
    """
    parameter = torch.nn.Parameter(torch.zeros(_example_shape(dimensions)))
    parameter.grad = torch.zeros_like(parameter)
    known = set(inspect.signature(type(optimizer)).parameters) - {"fused"}
    settings = {k: v for k, v in optimizer.defaults.items() if k in known}
    try:
        twin = type(optimizer)([parameter], **settings)
        twin.step()
    except Exception:  # it needs a GPU or a closure, or is another library's
        return {}
    return dict(twin.state[parameter])


def _example_shape(dimensions: int) -> tuple[int, ...]:
    return tuple(range(2, 2 + dimensions))


def _fits(value: object, example: object, parameter: Tensor) -> bool:
    """Whether a value of ``parameter``'s state is like that of an example."""
    if not isinstance(example, Tensor) or not example.dim():
        return _is_like(value, example)
    if not isinstance(value, Tensor):
        return False
    if example.shape == _example_shape(parameter.dim()):
        return value.shape == parameter.shape
    return value.dim() == example.dim()


def _is_like(value: object, current: object) -> bool:
    """Whether ``value`` can take the place of ``current``."""
    if current is None:
        return is_plain(value)
    if isinstance(current, bool | str):
        return type(value) is type(current)
    if is_number(current) or (isinstance(current, Tensor) and current.numel() == 1):
        return (is_number(value) or isinstance(value, Tensor)) and is_plain(value)
    if isinstance(current, Mapping):
        return (
            isinstance(value, Mapping)
            and value.keys() == current.keys()
            and all(_is_like(value[key], current[key]) for key in current)
        )
    if isinstance(current, list | tuple):
        if not isinstance(value, list | tuple):
            return False
        if current and all(map(is_number, current)):
            return all(map(is_number, value))
        return len(value) == len(current) and all(map(_is_like, value, current))
    return isinstance(value, type(current)) or isinstance(current, type(value))
