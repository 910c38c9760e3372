"""Checks what a checkpoint says about continuing a run, before the run uses it.

A damaged or crafted file can hold anything, and a run with other settings can need
something else. Each function raises an InputError that says what is wrong.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from convnext_dense.errors import InputError
from convnext_dense.utils.distributed import bare
from convnext_dense.utils.text import few

from . import random_states

_LARGEST_BATCH = 2**20  # images a step, of all processes
_LARGEST_SEED = 2**63 - 1
_KEYS = {
    *("samples", "batch", "seed", "sampler_seed", "validated"),
    *("random_states", "gradients"),
}
_START_AGAIN = (
    "The checkpoint is damaged, or not from convnext_dense: resume from another one, "
    "or start from its weights with --cfg-options load_from=FILE"
)
_ANOTHER_RUN = (
    "Use the config with which the run began. To start another run from the "
    "checkpoint's weights: --cfg-options load_from=FILE"
)


def position(checkpoint: Mapping) -> None:
    """Check the epoch, the iteration and the seed of a checkpoint.

    Raises:
        InputError: they are not whole numbers from 0 on.
    """
    meta = checkpoint.get("meta")
    for name in ("epoch", "iter"):
        value = meta.get(name) if isinstance(meta, Mapping) else None
        if not _is_whole(value):
            raise InputError(
                f"--resume: meta.{name} of the checkpoint is {_shown(value)}, not a "
                f"number from 0 on. {_START_AGAIN}"
            )
    seed = checkpoint["meta"].get("seed")
    if seed is not None and not _is_whole(seed, 0, 2**32 - 1):
        raise InputError(
            f"--resume: meta.seed of the checkpoint is {_shown(seed)}. {_START_AGAIN}"
        )


def state(content: object, iteration: int, model: torch.nn.Module) -> dict:
    """The state of ``ExactResumeHook`` in a checkpoint.

    Args:
        content: what the checkpoint has under the hook's key.
        iteration: that the checkpoint had reached.
        model: of the run, for the accumulated gradients.

    Raises:
        InputError: a value has another type or size than the hook writes.
    """
    problem = _problem(content, iteration, model)
    if problem:
        raise InputError(f"--resume: exact_resume in the checkpoint {problem}")
    assert isinstance(content, dict)
    return content


def _problem(content: Any, iteration: int, model: torch.nn.Module) -> str | None:
    """What is wrong with the hook's state."""
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        return f"lacks the values that resuming needs. {_START_AGAIN}"
    batch, samples = content["batch"], content["samples"]
    if not _is_whole(batch, 1, _LARGEST_BATCH):
        return f"has the batch size {_shown(batch)}. {_START_AGAIN}"
    # Earlier steps may have been larger. The run passes over this many samples.
    if not _is_whole(samples, 0, 100 * batch * iteration):
        return f"counts {_shown(samples)} used images. {_START_AGAIN}"
    for name in ("seed", "sampler_seed"):
        seed = content[name]
        absent = seed is None and name == "sampler_seed"
        if not absent and not _is_whole(seed, 0, _LARGEST_SEED):
            return f"has the {name} {_shown(seed)}. {_START_AGAIN}"
    if not isinstance(content["validated"], bool):
        return f"has validated={_shown(content['validated'])}. {_START_AGAIN}"
    states = content["random_states"]
    if not isinstance(states, list) or not states:
        return f"has no random states. {_START_AGAIN}"
    for rank, of_rank in enumerate(states):
        problem = random_states.problem(of_rank)
        if problem:
            return f"has random states of process {rank} {problem}. {_START_AGAIN}"
    return _gradient_problem(content["gradients"], model)


def _gradient_problem(gradients: Any, model: torch.nn.Module) -> str | None:
    """What is wrong with the accumulated gradients."""
    if not isinstance(gradients, dict):
        return f"has no gradients. {_START_AGAIN}"
    if not gradients or isinstance(model, FullyShardedDataParallel):
        return None
    parameters = dict(bare(model).named_parameters())
    unknown = [name for name in gradients if name not in parameters]
    if unknown:
        return (
            f"has gradients of parameters that the model does not have: {few(unknown)}."
            " Use the config with which the run began"
        )
    for name, gradient in gradients.items():
        parameter = parameters[name]
        if (
            not isinstance(gradient, torch.Tensor)
            or gradient.shape != parameter.shape
            or gradient.dtype != parameter.dtype
        ):
            return (
                f"has a gradient of {name} that does not fit the parameter. "
                + _START_AGAIN
            )
    return None


def schedules(saved: Any, runner: Runner) -> None:
    """Check the state of the schedules in a checkpoint before it is loaded.

    Raises:
        InputError: a value has another type than the schedule's.
    """
    if saved is None or not isinstance(runner.param_schedulers, list):
        return
    wrong = not _all_dicts(saved)
    for state, schedule in zip(
        () if wrong else saved, runner.param_schedulers, strict=False
    ):
        for key, value in schedule.state_dict().items():
            numbers = isinstance(value, int | float)
            type_: Any = int | float if numbers else type(value)
            if value is not None and key in state:
                wrong |= not isinstance(state[key], type_)
    if wrong:
        raise InputError(
            "--resume: param_schedulers in the checkpoint is no state of schedules. "
            + _START_AGAIN
        )


def optimizer(saved: Any, runner: Runner) -> None:
    """Check the optimizer's state in a checkpoint before it is loaded.

    Args:
        saved: what the checkpoint has as ``optimizer``.
        runner: has the run's optimizer.

    Raises:
        InputError: it belongs to another type of optimizer, or to other parameter
            groups.
    """
    built = _single(runner)
    if built is None:
        return
    content = saved if isinstance(saved, dict) else {}
    groups, states = content.get("param_groups", ()), content.get("state")
    is_state = isinstance(states, dict) and _all_dicts(list(states.values()))
    if not _all_dicts(groups) or not is_state:
        raise InputError(f"--resume: it has no state of an optimizer. {_START_AGAIN}")
    for group in groups:
        for key, default in built.defaults.items():
            # Newer versions of PyTorch add switches: booleans, or None.
            if key not in group and not isinstance(default, bool | None):
                raise InputError(
                    f"--resume: the checkpoint's optimizer has no {key}, so it is not "
                    f"{type(built).__name__}. {_ANOTHER_RUN}"
                )
            number = isinstance(default, int | float)
            value = group.get(key, default)
            if number and not isinstance(value, int | float | torch.Tensor):
                raise InputError(
                    f"--resume: {key} of the checkpoint's optimizer is "
                    f"{_shown(value)}, not a number. {_START_AGAIN}"
                )
    if len(groups) != len(built.param_groups):
        raise InputError(
            f"--resume: the checkpoint's optimizer has {len(groups)} parameter groups, "
            f"and this config makes {len(built.param_groups)}: "
            f"optim_wrapper.constructor or paramwise_cfg differ. {_ANOTHER_RUN}"
        )


def optimizer_state(runner: Runner) -> None:
    """Check the optimizer's state after a checkpoint has been loaded into it.

    Raises:
        InputError: values do not fit the optimizer or the model's parameters.
    """
    loaded = _single(runner)
    if loaded is None:
        return
    expected = _state_of_one_step(loaded)
    for parameter, values in loaded.state.items():
        for key, value in expected.items() if values else ():
            if not _fits(values.get(key), value, parameter):
                raise InputError(
                    f"--resume: {key} of the checkpoint's optimizer does not fit "
                    f"{type(loaded).__name__} and the model's parameters. "
                    + _ANOTHER_RUN
                )


def _single(runner: Runner) -> torch.optim.Optimizer | None:
    """The run's optimizer; None with FSDP, or if it has several."""
    wrapper = runner.optim_wrapper
    sharded = isinstance(runner.model, FullyShardedDataParallel)
    if not isinstance(wrapper, OptimWrapper) or sharded:
        return None
    return wrapper.optimizer


def _all_dicts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, dict) for v in values)


def _state_of_one_step(loaded: torch.optim.Optimizer) -> dict:
    """What such an optimizer keeps for a parameter; empty if that is not known."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    accepted = inspect.signature(type(loaded)).parameters
    options = {k: v for k, v in loaded.defaults.items() if k in accepted}
    try:
        other = type(loaded)([parameter], **options)
        other.step()
    except Exception:  # another library's optimizer, which is built otherwise
        return {}
    return dict(other.state[parameter])


def _fits(value: object, example: object, parameter: torch.Tensor) -> bool:
    """Whether a value of an optimizer's state is like that of another parameter."""
    if not isinstance(example, torch.Tensor):
        return isinstance(value, type(example)) or example is None or value is None
    if isinstance(value, int | float):
        return not example.dim()  # PyTorch once kept the step as a number
    shape = parameter.shape if example.dim() else example.shape
    return isinstance(value, torch.Tensor) and value.shape == shape


def _is_whole(value: object, least: int = 0, most: int | None = None) -> bool:
    """Whether a value is a whole number in a range."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        return False
    return most is None or value <= most


def _shown(value: object) -> str:
    """A value in a message; only the type of what may be long."""
    if isinstance(value, int) and abs(value) > _LARGEST_SEED:
        return "a very large number" if value > 0 else "a very small number"
    if isinstance(value, int | float | None):
        return repr(value)
    return f"a {type(value).__name__}"
