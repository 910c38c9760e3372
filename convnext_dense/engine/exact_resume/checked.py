"""Checks the state of ``ExactResumeHook`` in a checkpoint, before the hook uses it.

A damaged or crafted file can hold anything. mmengine's own state is checked by
``checkpoints.run_state``, when the file is read.
"""

from typing import Any

import torch
from torch.distributed.fsdp import FullyShardedDataParallel

from convnext_dense.errors import InputError
from convnext_dense.utils.distributed import bare
from convnext_dense.utils.text import few

from . import random_states
from .memory import is_data

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
    for name in ("by_epoch", "stopped"):  # older checkpoints lack them
        if not isinstance(content.get(name, False), bool):
            return f"has {name}={_shown(content[name])}. {_START_AGAIN}"
    hooks = content.get("hooks", {})
    if not isinstance(hooks, dict) or not all(
        isinstance(name, str) and isinstance(entry, dict) and is_data(entry)
        for name, entry in hooks.items()
    ):
        return f"has hooks that are not their states. {_START_AGAIN}"
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
    if not isinstance(gradients, dict) or not all(
        isinstance(gradient, torch.Tensor) for gradient in gradients.values()
    ):
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
        if gradient.shape != parameter.shape or gradient.dtype != parameter.dtype:
            return (
                f"has a gradient of {name} that does not fit the parameter. "
                + _START_AGAIN
            )
    return None


def _is_whole(value: object, least: int, most: int) -> bool:
    """Whether a value is a whole number in a range."""
    return type(value) is int and least <= value <= most


def _shown(value: object) -> str:
    """A value in a message; only the type of what may be long."""
    if isinstance(value, int) and abs(value) > _LARGEST_SEED:
        return "a very large number" if value > 0 else "a very small number"
    if isinstance(value, int | float | None):
        return repr(value)
    return f"a {type(value).__name__}"
