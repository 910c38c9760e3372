"""Writes the batch of one step to a file, and repeats the step from the file."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import autocast
from torch import nn

from convnext_dense.checkpoints import read_batch
from convnext_dense.errors import InputError
from convnext_dense.models.block import Block
from convnext_dense.utils import files, torch_files
from convnext_dense.utils.text import few, reason

from ..exact_resume import random_states


def images(batch: object) -> list[str]:
    """The image files of a toolbox's batch; their numbers in it without file names.

    >>> images(dict(inputs=[], data_samples=[object()]))
    ['image 0 of the batch']
    """
    samples = batch.get("data_samples") if isinstance(batch, Mapping) else None
    return [
        str(getattr(sample, "img_path", None) or f"image {number} of the batch")
        for number, sample in enumerate(samples if isinstance(samples, list) else ())
    ]


def write(
    file: Path, model: nn.Module, states: dict, batch: object, iteration: int
) -> None:
    """Write the file that ``replay`` reads.

    Args:
        model: with the weights at the start of the step.
        states: of the random generators at the start of the step.
        batch: as the data loader returned it.

    Raises:
        InputError: the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    content = dict(
        batch=batch,
        iteration=iteration,
        random_states=states,
        state_dict=model.state_dict(),
    )
    with files.whole(file) as partial, torch_files.open_to_write(partial) as stream:
        torch.save(content, stream)


def replay(cfg: Config, model: BaseModel, file: str) -> tuple[list[str], bool]:
    """Repeat the forward and backward pass of a batch.

    Args:
        cfg: of the run; it decides the precision.
        model: of ``cfg``; its weights are replaced by the file's.
        file: written by ``write``.

    Returns:
        A report in lines, and whether all losses and gradients are finite.

    Raises:
        InputError: the file holds no batch, or the batch of another model.
    """
    content = read_batch(file)
    weights = content.get("state_dict")
    states: Any = content.get("random_states")
    problem = random_states.problem(states)
    if problem:
        raise InputError(f"--replay: {file} has random_states {problem}")
    if _shapes(weights) != _shapes(model.state_dict()):
        raise InputError(
            f"--replay: {file} was written for another model than that of "
            f"{cfg.filename}; name the config of its run"
        )
    model.load_state_dict(weights)
    model.to(get_device()).train()
    random_states.restore(states)
    batch, wrapper = content["batch"], cfg.optim_wrapper
    lines = [f"iteration {content.get('iteration')}:", *images(batch)]

    mixed = wrapper.get("type") == AmpOptimWrapper.__name__
    dtype = getattr(torch, wrapper.get("dtype") or "", None)
    try:
        with _watched(model) as bad_modules, autocast(enabled=mixed, dtype=dtype):
            data = model.data_preprocessor(batch, True)
            losses = model._run_forward(data, mode="loss")
        loss, values = model.parse_losses(losses)
    except Exception as error:  # a model can raise anything for a wrong batch
        raise InputError(
            f"--replay: the model of {cfg.filename} fails with the batch in {file}: "
            f"{reason(error)}. CONVNEXT_DENSE_DEBUG=1 shows where"
        ) from error
    with torch.no_grad():
        lines += [f"{name}: {float(value):g}" for name, value in values.items()]
    if bad_modules:
        lines.append(f"the first output that is not finite is of {bad_modules[0]}")
    loss.backward()
    gradients = not_finite(model)
    if gradients:
        lines.append(f"not finite: the gradients of {few(gradients)}")
    finite = not (bad_modules or gradients or bad_losses(values))
    lines.append("everything is finite this time" if finite else "not finite again")
    return lines, finite


def _shapes(weights: object) -> dict[str, torch.Size | None]:
    if not isinstance(weights, Mapping):
        return {}
    return {name: getattr(weight, "shape", None) for name, weight in weights.items()}


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """Yield a list that collects the modules whose outputs are not finite.

    The list grows in the order of the forward pass, and is complete after it. It has
    the data preprocessor in it if the images are not finite.
    """
    not_finite_modules: list[str] = []

    def watch(name: str) -> Callable:
        def look(module: nn.Module, inputs: object, outputs: object) -> None:
            if any(not tensor.isfinite().all() for tensor in _tensors(outputs)):
                not_finite_modules.append(name)

        return look

    # Not inside a block: a hook there makes the block use other code, which draws other
    # random numbers for drop path.
    blocks = [n for n, module in model.named_modules() if isinstance(module, Block)]
    inside = tuple(f"{name}." for name in blocks)
    handles = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if name and not name.startswith(inside)
    ]
    try:
        yield not_finite_modules
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: object) -> Iterator[torch.Tensor]:
    """The floating-point tensors in a module's output, at any depth."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def not_finite(model: nn.Module) -> list[str]:
    """The names of the parameters whose gradients are not finite."""
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]


def bad_losses(values: Mapping) -> list[str]:
    """The losses that are not finite, each as its name and value.

    Args:
        values: what a step logs. As in mmengine, a loss has 'loss' in its name; other
            values, such as accuracies, are ignored.

    >>> bad_losses(dict(loss_box=float("nan"), loss_mask=0.5, acc=float("inf")))
    ['loss_box nan']
    """
    losses = {n: torch.as_tensor(v).item() for n, v in values.items() if "loss" in n}
    return [
        f"{name} {value:g}"
        for name, value in losses.items()
        if not math.isfinite(value)
    ]
