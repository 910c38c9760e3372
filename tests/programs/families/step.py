"""Trains a model for one step and predicts with it."""

import functools
import inspect
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from . import data, fitting
from .catalogue import Family
from .shrinking import LINE_SIZE, image_size, small_model, smallest


class Failure(Exception):
    """The model was built and ran, but its values are wrong."""


class Result(NamedTuple):
    """What a run showed.

    Attributes:
        works: whether it trained and predicted.
        reason: why not, in a line; empty if it works.
        loss: the sum of the losses.
        gradients: the share of the trained parameters' tensors with a gradient.
        predicted: what was predicted, in words.
        note: how ConvNeXt differs from its defaults, where the model needs that.
        ops: the compiled ops of mmcv that were called, compiled or from a stand-in.
        seconds: how long it took.
        cpu_seconds: of which the processor computed.
        trace: the last lines of the exception's stack.
    """

    works: bool
    reason: str = ""
    loss: float | None = None
    gradients: float | None = None
    predicted: str = ""
    note: str = ""
    ops: tuple[str, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    trace: str = ""


def run(family: Family, with_convnext: bool, device: str) -> Result:
    """Build, train and use a family's model, as shipped or with ConvNeXt."""
    start, cpu_start = time.monotonic(), time.process_time()
    ops: set[str] = set()
    _record_ops(ops)
    result = Result(False)
    try:
        for reached in _run(family, with_convnext, device):
            result = reached
    except Exception as error:
        trained = "it trains, but does not predict: " if result.loss else ""
        trace = traceback.format_exc().splitlines()[-12:]
        result = result._replace(reason=trained + reason(error), trace="\n".join(trace))
    return result._replace(
        ops=tuple(sorted(ops)),
        seconds=round(time.monotonic() - start, 1),
        cpu_seconds=round(time.process_time() - cpu_start, 1),
    )


def reason(error: Exception) -> str:
    """An exception in a line, with the requirement where one is missing."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, NotImplementedError) and "has no stand-in" in first_line:
        return "mmcv's compiled op " + first_line.split("op '")[1].partition("'")[0]
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name}"
    if isinstance(error, fitting.CannotFit | Failure):
        return first_line
    return f"{type(error).__name__}: {first_line}"[:200]


def _run(family: Family, with_convnext: bool, device: str) -> Iterator[Result]:
    """The result after training, and the one after predicting."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        config = small_model(family, Path(folder))
        model, backbone = build(family, config, with_convnext)
    model.to(device)
    loss, gradients = train(model, backbone, batch(family, config, 2))
    trained = Result(False, loss=loss, gradients=gradients)
    if with_convnext and not backbone.channels_last:
        trained = trained._replace(note="with channels_last=False")
    yield trained
    predicted = predict(model, batch(family, config, 1))
    yield trained._replace(works=True, predicted=predicted)


def _record_ops(names: set[str]) -> None:
    """Let each function of ``mmcv._ext`` add its name when it is called."""
    module = sys.modules["mmcv._ext"]

    def recording(name: str, op: Callable) -> Callable:
        @functools.wraps(op)
        def call(*args, **kwargs):
            names.add(name)
            return op(*args, **kwargs)

        return call

    for name, op in list(vars(module).items()):
        if callable(op) and not name.startswith("_"):
            # Without the wrapper of the run before, in a process that runs many.
            setattr(module, name, recording(name, inspect.unwrap(op)))


def build(
    family: Family, config: ConfigDict, with_convnext: bool
) -> tuple[nn.Module, nn.Module]:
    """The model, and the module whose gradients are looked at."""
    from mmengine.registry import MODELS

    from convnext_dense import ConvNeXt

    # A scope and the iteration, as a runner gives them.
    name = f"{family.name} {with_convnext}"
    DefaultScope.get_instance(name, scope_name=family.toolbox)
    hub = MessageHub.get_instance(name)
    for key, value in dict(iter=0, epoch=0, max_iters=10, max_epochs=1).items():
        hub.update_info(key, value)
    if with_convnext:
        config = fitting.with_convnext(config, image_size(family))
    model = MODELS.build(config)
    model.init_weights()
    if not with_convnext:
        return model, model
    ours = [module for module in model.modules() if isinstance(module, ConvNeXt)]
    return model, ours[0]


def batch(family: Family, config: ConfigDict, num_images: int) -> dict:
    """Made data for a family's model."""
    size = image_size(family)
    num_classes = smallest(config, "num_classes", 2)
    if family.toolbox == "mmseg":
        return data.segmentation(size, num_images, num_classes)
    if config.type == "CLRNet":
        return data.lines(LINE_SIZE, num_images)
    if "semi_train_cfg" in config:
        return data.semi_supervised(size, num_images, num_classes)
    if "language_model" in config:
        num_classes = min(num_classes, len(data.TEXTS))
    things = smallest(config, "num_things_classes", num_classes)
    stuff = smallest(config, "num_stuff_classes", 0)
    maps = (things, stuff) if stuff else (0, num_classes)
    made = data.detection(size, num_images, min(things, num_classes), maps)
    for sample in made["data_samples"]:
        if "mask" not in str(config).lower():
            del sample.gt_instances.masks, sample.ignored_instances.masks
        if config.get("rpn_head"):
            del sample.proposals  # else they replace those of the RPN
    return made


def train(model: nn.Module, watched: nn.Module, data: dict) -> tuple[float, float]:
    """One step: the sum of the losses, and the share of tensors with a gradient.

    Raises:
        Failure: a loss or a gradient is not finite, or ``watched`` has no gradient.
    """
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-5)
    data = model.data_preprocessor(data, True)
    losses = model._run_forward(data, mode="loss")
    total, logs = model.parse_losses(losses)
    for name, value in logs.items():
        if not torch.isfinite(torch.as_tensor(value)).all():
            raise Failure(f"{name} is {float(value)}")
    total.backward()
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not all(torch.isfinite(gradient).all() for gradient in gradients):
        raise Failure("a gradient is not finite")
    if not any(p.grad is not None and p.grad.any() for p in watched.parameters()):
        raise Failure("no parameter of the backbone has a gradient")
    optimizer.step()
    nonzero = sum(bool(gradient.any()) for gradient in gradients)
    return float(total), round(nonzero / len(parameters), 3)


def predict(model: nn.Module, data: dict) -> str:
    """What the model predicts for an image, in words.

    Raises:
        Failure: a value is not finite, or nothing is predicted.
    """
    model.eval()
    if isinstance(data["inputs"], dict):
        data = {key: value["sup"] for key, value in data.items()}
    with torch.no_grad():
        outcome = model.test_step(data)
    tensors = list(_tensors(outcome))
    if not any(
        key.startswith("pred") for sample in outcome for key, _ in sample.items()
    ):
        raise Failure("nothing is predicted")
    for name, tensor in tensors:
        if not torch.isfinite(tensor).all():
            raise Failure(f"{name} of the prediction is not finite")
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors)


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The names and tensors of predictions."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, name)
    elif hasattr(value, "keys"):
        for key, item in value.items():
            if name or key.startswith("pred"):
                yield from _tensors(item, f"{name}.{key}".strip("."))
