"""Times the parts of a training step: modules, backward, optimizer and stand-ins."""

import collections
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ..helpers.synchronisations import OURS


class Clock:
    """Moments on a GPU's time line, or the host's on a CPU; their distance in ms."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device == "cuda"

    def now(self) -> Any:
        """This moment. On a GPU it comes when the work given so far is done."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float:
        """Milliseconds; the GPU must be synchronised."""
        return start.elapsed_time(end) if self.on_gpu else (end - start) * 1e3

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


class Spans:
    """Named spans of a step: calls, and milliseconds each."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._spans: dict[str, list] = collections.defaultdict(list)

    def add(self, name: str, start: Any, end: Any) -> None:
        self._spans[name].append((start, end))

    def timed(self, name: str, function: Callable) -> Callable:
        """``function``, whose calls are noted under ``name``."""

        def call(*args: Any, **kwargs: Any) -> Any:
            start = self.clock.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(name, start, self.clock.now())

        return call

    def clear(self) -> None:
        """Forget all spans."""
        self._spans.clear()

    def totals(self, steps: int) -> dict[str, tuple[float, float]]:
        """Calls and milliseconds a step, by name."""
        self.clock.wait()
        return {
            name: (
                len(spans) / steps,
                sum(itertools.starmap(self.clock.between, spans)) / steps,
            )
            for name, spans in self._spans.items()
        }


@contextmanager
def marked(runner: Runner, spans: Spans) -> Iterator[None]:
    """Note the spans of the steps inside: modules, optimizer wrapper and stand-ins."""
    with ExitStack() as undo:
        marks = _mark_modules(runner.model, spans, undo)
        _mark_optimizer(runner.optim_wrapper, spans, marks, undo)
        _mark_stand_ins(spans, undo)
        yield


def _mark_modules(model: Any, spans: Spans, undo: ExitStack) -> dict[str, Any]:
    """Time the forward of the model's parts.

    Returns:
        a dict that has, after a backward, the last moment at which a gradient came to
        the outputs of the backbone and of the neck.
    """
    marks: dict[str, Any] = {}

    def watch(module: nn.Module, name: str, method: str = "forward") -> None:
        setattr(module, method, spans.timed(name, getattr(module, method)))
        undo.callback(delattr, module, method)

    def mark(gradient: Tensor, name: str) -> None:
        marks[name] = spans.clock.now()

    def watch_gradients(module: nn.Module, name: str) -> None:
        def hook(module: nn.Module, inputs: object, outputs: Any) -> None:
            for tensor in outputs if isinstance(outputs, tuple | list) else ():
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(functools.partial(mark, name=name))

        undo.callback(module.register_forward_hook(hook).remove)

    watch(model.data_preprocessor, "data preprocessor")
    for name in ("backbone", "neck"):
        if isinstance(getattr(model, name, None), nn.Module):
            watch(getattr(model, name), f"{name} forward")
            watch_gradients(getattr(model, name), name)
    watch(model, "model forward", "_run_forward")
    for module in model.modules():
        if ".losses" in type(module).__module__:
            watch(module, "loss functions forward")
    return marks


def _mark_optimizer(
    wrapper: OptimWrapper, spans: Spans, marks: dict[str, Any], undo: ExitStack
) -> None:
    """Time the optimizer wrapper's methods, and the parts of backward by ``marks``."""
    for method in ("backward", "step", "zero_grad"):
        previous = vars(wrapper).get(method)  # None: the class's
        setattr(wrapper, method, spans.timed(method, getattr(wrapper, method)))
        undo.callback(_put_back, wrapper, method, previous)
    backward = wrapper.backward

    def marked_backward(loss: Tensor, **kwargs: Any) -> None:
        start = spans.clock.now()
        backward(loss, **kwargs)
        end = spans.clock.now()
        for name, part in (("neck", "heads and losses"), ("backbone", "neck")):
            if name in marks:
                spans.add(f"{part} backward", start, marks[name])
                start = marks.pop(name)
        spans.add("backbone backward", start, end)

    wrapper.backward = marked_backward


def _mark_stand_ins(spans: Spans, undo: ExitStack) -> None:
    """Time this package's functions in ``mmcv._ext``."""
    extension = sys.modules.get("mmcv._ext")
    for name, op in list(vars(extension).items() if extension else ()):
        if getattr(op, "__module__", "").startswith(OURS) and callable(op):
            setattr(extension, name, spans.timed(f"op {name}", op))
            undo.callback(setattr, extension, name, op)


def _put_back(owner: object, name: str, value: object) -> None:
    """Set an attribute of an object again; None removes it."""
    if value is None:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


def report(spans: Spans, steps: int, step_ms: float) -> list[str]:
    """The spans of ``marked`` as lines, the longest first.

    Args:
        spans: of ``steps`` steps.
        steps: their number.
        step_ms: milliseconds of a step.
    """
    totals = spans.totals(steps)
    inside = [totals.get(f"{n} forward", (0, 0.0))[1] for n in ("backbone", "neck")]
    heads = totals.pop("model forward")[1] - sum(inside)
    totals["heads and losses forward"] = (1, heads)
    parts, ops = [], []
    for name, (calls, ms) in sorted(totals.items(), key=lambda item: -item[1][1]):
        lines = ops if name.startswith("op ") else parts
        text = f"{name.removeprefix('op ')} ({calls:g} calls)"
        lines.append(f"    {ms / step_ms:6.1%} {ms:9.2f} ms  {text}")
    return [
        f"  parts of a step of {step_ms:.1f} ms (with these marks):",
        *parts,
        "  stand-ins for mmcv's compiled ops (parts of the above):",
        *(ops or ["    none was called"]),
    ]
