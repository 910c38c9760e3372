"""One batch in a file: what a step was made of, and running it again."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

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
from convnext_dense.utils import files
from convnext_dense.utils.text import few

from ..exact_resume import random_states


def images(batch) -> list[str]:
    """The files of a toolbox's batch; their places in it if they are not known."""
    samples = batch.get("data_samples") if isinstance(batch, Mapping) else None
    return [
        str(getattr(sample, "img_path", None) or f"image {number} of the batch")
        for number, sample in enumerate(samples or ())
    ]


def write(file: Path, model: nn.Module, states: dict, batch, iteration: int) -> None:
    """Write what ``replay`` reads.

    Args:
        model: with the weights that the step began with.
        states: of the random generators, as the step began.
        batch: as the data loader made it.

    Raises:
        InputError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    content = dict(
        batch=batch,
        iteration=iteration,
        random_states=states,
        state_dict=model.state_dict(),
    )
    with files.whole(file) as partial, partial.open("wb") as stream:
        torch.save(content, stream)


def replay(cfg: Config, model: BaseModel, file: str) -> tuple[list[str], bool]:
    """Run a batch again, forwards and backwards.

    Args:
        cfg: of the run, for its precision.
        model: of ``cfg``.
        file: written by ``write``.

    Returns:
        What to tell, in lines, and whether all was finite.

    Raises:
        InputError: the file is none, or of another model.
    """
    content = read_batch(file)
    weights, own = content["state_dict"], model.state_dict()
    if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in own.items()}:
        raise InputError(f"--replay: {file} is not of the model of {cfg.filename}")
    model.load_state_dict(weights)
    model.to(get_device()).train()
    random_states.restore(content["random_states"])
    batch, wrapper = content["batch"], cfg.optim_wrapper
    lines = [f"iteration {content['iteration']}:", *images(batch)]

    found = []
    mixed = wrapper.get("type") == AmpOptimWrapper.__name__
    dtype = getattr(torch, wrapper.get("dtype") or "", None)
    with _watched(model, found), autocast(enabled=mixed, dtype=dtype):
        data = model.data_preprocessor(batch, True)
        losses = model._run_forward(data, mode="loss")
    loss, values = model.parse_losses(losses)
    with torch.no_grad():
        lines += [f"{name}: {float(value):g}" for name, value in values.items()]
    if found:
        lines.append(f"the first that is not finite comes out of {found[0]}")
    loss.backward()
    gradients = not_finite(model)
    if gradients:
        lines.append(f"not finite: the gradients of {few(gradients)}")
    finite = not (found or gradients or bad_losses(values))
    lines.append("all is finite here" if finite else "not finite again")
    return lines, finite


@contextmanager
def _watched(model: nn.Module, found: list[str]) -> Iterator[None]:
    """Gather in ``found`` the parts of ``model`` that put out what is not finite, in
    their order, and the images if they are not."""

    def look(name, outputs):
        if any(not t.isfinite().all() for t in _tensors(outputs)):
            found.append(name)

    def watch(name):
        return lambda part, inputs, outputs: look(name, outputs)

    # Not within a block: with a hook on a part it takes another way, and draws
    # other numbers for drop path.
    blocks = [n for n, part in model.named_modules() if isinstance(part, Block)]
    within = tuple(f"{name}." for name in blocks)
    handles = [
        part.register_forward_hook(watch(name))
        for name, part in model.named_modules()
        if name and not name.startswith(within)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def not_finite(model: nn.Module) -> list[str]:
    """The parameters whose gradients are not finite."""
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]


def bad_losses(values: Mapping) -> list[str]:
    """Those of a step's logged losses that are not finite, with their values.

    As in mmengine, what has no 'loss' in its name is none: accuracies and the like.
    """
    losses = {n: torch.as_tensor(v).item() for n, v in values.items() if "loss" in n}
    return [
        f"{name} {value:g}"
        for name, value in losses.items()
        if not math.isfinite(value)
    ]
