"""Prints what a training step consists of: ``python -m tests.programs.step_profile``.

For each config: the time of a step by parts (data, backbone, neck, heads, losses,
optimizer), the host time of each hook, the stand-ins for mmcv's compiled ops, the
synchronisations of a GPU by the line that causes them, and a comparison of steps with
this package's hooks and without them, which take turns on the same batches.
"""

import argparse
import collections
import copy
import functools
import itertools
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from convnext_dense.commands.benchmark import machine

from ..helpers import synchronisations
from ..helpers.paths import ROOT
from ..helpers.synchronisations import OURS
from .step_runs import prepare

CONFIGS = (
    ROOT / "configs/det/cascade_mask_rcnn_convnext_t_coco.py",
    ROOT / "configs/det/dino_4scale_convnext_t_coco.py",
)
WARM_UP = 4  # steps before anything is measured
PARTS = ("data preprocessor", "backbone", "neck", "heads", "losses")


class Stop(Exception):
    """Ends a run."""


class _BeforeOthers(Hook):
    """Calls ``work`` with the Runner, before the other hooks' ``before_run``."""

    priority = "HIGHEST"

    def __init__(self, work: Callable[[Runner], None]) -> None:
        self._work = work

    def before_run(self, runner: Runner) -> None:
        """Call it."""
        self._work(runner)


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
        self._clock = clock
        self._spans: dict[str, list] = collections.defaultdict(list)

    def add(self, name: str, start: Any, end: Any) -> None:
        self._spans[name].append((start, end))

    def timed(self, name: str, function: Callable) -> Callable:
        """``function``, whose calls are noted under ``name``."""

        def call(*args: Any, **kwargs: Any) -> Any:
            start = self._clock.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(name, start, self._clock.now())

        return call

    def clear(self) -> None:
        """Forget all spans."""
        self._spans.clear()

    def totals(self, steps: int) -> dict[str, tuple[float, float]]:
        """Calls and milliseconds a step, by name."""
        self._clock.wait()
        return {
            name: (
                len(spans) / steps,
                sum(itertools.starmap(self._clock.between, spans)) / steps,
            )
            for name, spans in self._spans.items()
        }


class Profile:
    """Runs a Runner's training steps and measures them.

    Args:
        runner: built, with its hooks.
        device: cpu or cuda.
        seconds: to spend on the comparison with and without hooks.
    """

    def __init__(self, runner: Runner, device: str, seconds: float) -> None:
        self.runner, self.device, self.seconds = runner, device, seconds
        self.clock = Clock(device)
        self.lines: list[str] = []
        self._inner = Spans(Clock("cpu"))  # the wrapper's methods without our checks

    def run(self) -> list[str]:
        """Train; return the report in lines."""
        loop = self.runner.train_loop
        self._step = loop.run_iter
        # The loop calls this with its first batch. It takes the other batches itself.
        loop.run_iter = self._measure
        self.runner.register_hook(_BeforeOthers(self._time_wrapper))
        with suppress(Stop):
            self.runner.train()
        return self.lines

    def _time_wrapper(self, runner: Runner) -> None:
        """Time the optimizer wrapper's methods, before WatchHook wraps them again."""
        self._plain = {
            name: self._inner.timed(name, getattr(runner.optim_wrapper, name))
            for name in ("step", "backward")
        }
        vars(runner.optim_wrapper).update(self._plain)

    def _measure(self, first: Any) -> None:
        loop = self.runner.train_loop
        # ExactResumeHook has replaced the loop's iterator by now.
        fetch_ms = []
        batches = [first]
        for _ in range(3):
            start = time.perf_counter()
            batches.append(next(loop.dataloader_iterator))
            fetch_ms.append((time.perf_counter() - start) * 1e3)
        self._batches: Iterator = itertools.cycle(batches)
        for _ in range(WARM_UP):
            self._timed_step()
        self._compare()
        self.lines.append(
            f"  fetching a batch in this process: {min(fetch_ms):.1f} ms (workers do "
            "this beside the steps)"
        )
        self._hooks()
        self._parts()
        if self.device == "cuda":
            self._synchronisations()
        raise Stop

    def _timed_step(self) -> float:
        """Run a step of the next batch; return its milliseconds."""
        batch = copy.deepcopy(next(self._batches))
        self.clock.wait()
        start = time.perf_counter()
        self._step(batch)
        self.clock.wait()
        return (time.perf_counter() - start) * 1e3

    # With and without this package's hooks

    def _compare(self) -> None:
        pairs: list[tuple[float, float]] = []
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end or len(pairs) < 3:
            batch = next(self._batches)
            times = {}
            for with_hooks in (True, False) if len(pairs) % 2 else (False, True):
                self._batches, rest = itertools.repeat(batch), self._batches
                with self._without_ours(not with_hooks):
                    times[with_hooks] = self._timed_step()
                self._batches = rest
            pairs.append((times[True], times[False]))
        with_ms, without_ms = (statistics.median(t) for t in zip(*pairs, strict=True))
        differences = [a - b for a, b in pairs]
        middle = statistics.median(differences)
        error = statistics.pstdev(differences) / len(pairs) ** 0.5
        self.step_ms = with_ms
        self.lines += [
            f"  step: {with_ms:.1f} ms with {OURS}'s hooks, {without_ms:.1f} ms "
            f"without them (medians of {len(pairs)} pairs on equal batches)",
            f"  difference of a pair: {middle:+.2f} ms, {middle / without_ms:+.1%} "
            f"(median; standard error of the mean {error:.2f} ms)",
        ]

    @contextmanager
    def _without_ours(self, leave_out: bool):
        """Leave out this package's hooks and what they wrap."""
        if not leave_out:
            yield
            return
        runner, wrapper = self.runner, vars(self.runner.optim_wrapper)
        hooks, checked = runner._hooks, {name: wrapper[name] for name in self._plain}
        runner._hooks = [h for h in hooks if OURS not in type(h).__module__]
        wrapper.update(self._plain)
        try:
            yield
        finally:
            runner._hooks = hooks
            wrapper.update(checked)

    # Hooks, in host time

    def _hooks(self, steps: int = 8) -> None:
        host = Spans(Clock("cpu"))
        wrapper = vars(self.runner.optim_wrapper)
        checked = {name: wrapper[name] for name in self._plain}
        for name, method in checked.items():
            wrapper[name] = host.timed(f"checked {name}", method)
        places = ("before_train_iter", "after_train_iter")
        for hook in self.runner.hooks:
            name = f"{type(hook).__module__.split('.')[0]}.{type(hook).__name__}"
            for place in places:
                setattr(hook, place, host.timed(name, getattr(hook, place)))
        self._inner.clear()
        for _ in range(steps):
            self._timed_step()
        for hook in self.runner.hooks:
            for place in places:
                delattr(hook, place)
        wrapper.update(checked)
        totals, inner = host.totals(steps), self._inner.totals(steps)
        self.lines.append("  hooks, ms of the host a step (waits for a GPU included):")
        for name in self._plain:
            checks = totals.pop(f"checked {name}")[1] - inner[name][1]
            self.lines.append(f"    {OURS}, checks around {name}: {checks:.3f}")
        for name, (_, ms) in sorted(totals.items(), key=lambda item: -item[1][1]):
            if OURS in name or ms > 0.02:
                self.lines.append(f"    {name}: {ms:.3f}")

    # Parts of a step, and stand-ins

    def _parts(self, steps: int = 4) -> None:
        spans = Spans(self.clock)
        model = self.runner.model
        undo: list[Callable] = []

        def watch(module: nn.Module, name: str, method: str = "forward") -> None:
            setattr(module, method, spans.timed(name, getattr(module, method)))
            undo.append(lambda: delattr(module, method))

        marks: dict[str, Any] = {}

        def at_gradient(name: str) -> Callable:
            def mark(gradient: Tensor) -> None:
                marks[name] = self.clock.now()

            return mark

        def watch_gradients(module: nn.Module, name: str) -> None:
            def hook(module: nn.Module, inputs: object, outputs: Any) -> None:
                for tensor in outputs if isinstance(outputs, tuple | list) else ():
                    if isinstance(tensor, Tensor) and tensor.requires_grad:
                        tensor.register_hook(at_gradient(name))

            undo.append(module.register_forward_hook(hook).remove)

        watch(model.data_preprocessor, "data preprocessor")
        for name in ("backbone", "neck"):
            if isinstance(getattr(model, name, None), nn.Module):
                watch(getattr(model, name), f"{name} forward")
                watch_gradients(getattr(model, name), name)
        watch(model, "model forward", "_run_forward")
        for module in model.modules():
            if ".losses" in type(module).__module__:
                watch(module, "loss functions forward")
        wrapper = self.runner.optim_wrapper
        for method in ("backward", "step", "zero_grad"):
            previous = vars(wrapper).get(method)  # None: the class's
            setattr(wrapper, method, spans.timed(method, getattr(wrapper, method)))
            undo.append(functools.partial(_put_back, wrapper, method, previous))
        backward = wrapper.backward

        def marked_backward(loss: Tensor, **kwargs: Any) -> None:
            start = self.clock.now()
            backward(loss, **kwargs)
            end = self.clock.now()
            for name, part in (("neck", "heads and losses"), ("backbone", "neck")):
                if name in marks:
                    spans.add(f"{part} backward", start, marks[name])
                    start = marks.pop(name)
            spans.add("backbone backward", start, end)

        wrapper.backward = marked_backward
        undo += self._watch_stand_ins(spans)
        step_ms = [self._timed_step() for _ in range(steps)]
        for action in reversed(undo):
            action()
        totals = spans.totals(steps)
        total = statistics.mean(step_ms)
        inside = [totals.get(f"{n} forward", (0, 0.0))[1] for n in ("backbone", "neck")]
        heads = totals.pop("model forward")[1] - sum(inside)
        totals["heads and losses forward"] = (1, heads)
        self.lines.append(f"  parts of a step of {total:.1f} ms (with these marks):")
        ordered = sorted(totals.items(), key=lambda item: -item[1][1])
        for name, (calls, ms) in ordered:
            if not name.startswith("op "):
                share = f"{ms / total:6.1%}"
                self.lines.append(f"    {share} {ms:9.2f} ms  {name} ({calls:g} calls)")
        self.lines.append("  stand-ins for mmcv's compiled ops (parts of the above):")
        ops = [item for item in ordered if item[0].startswith("op ")]
        for name, (calls, ms) in ops:
            share = f"{ms / total:6.1%}"
            self.lines.append(f"    {share} {ms:9.2f} ms  {name[3:]} ({calls:g} calls)")
        if not ops:
            self.lines.append("    none was called")

    def _watch_stand_ins(self, spans: Spans) -> list[Callable]:
        """Time the functions of ``mmcv._ext``; return what undoes it."""
        extension = sys.modules.get("mmcv._ext")
        undo = []
        for name, op in list(vars(extension).items() if extension else ()):
            if getattr(op, "__module__", "").startswith(OURS) and callable(op):
                setattr(extension, name, spans.timed(f"op {name}", op))
                undo.append(lambda n=name, o=op: setattr(extension, n, o))
        return undo

    # Synchronisations of the GPU

    def _synchronisations(self, steps: int = 3) -> None:
        batches = [copy.deepcopy(next(self._batches)) for _ in range(steps)]
        with synchronisations.noted() as counts:
            for batch in batches:
                self._step(batch)
        by_project: collections.Counter[str] = collections.Counter()
        for (project, _), count in counts.items():
            by_project[project] += count
        shares = ", ".join(f"{p} {c / steps:.1f}" for p, c in by_project.most_common())
        self.lines.append(f"  synchronisations of the GPU a step: {shares or 'none'}")
        for (project, line), count in counts.most_common(60):
            if project == OURS or count >= steps:
                self.lines.append(f"    {count / steps:5.1f}  {project}: {line}")


def _put_back(owner: object, name: str, value: object) -> None:
    """Set an attribute of an object again; None removes it."""
    if value is None:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the reports; the exit code is 1 if a config failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", nargs="*", type=Path, default=list(CONFIGS))
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), default="bf16")
    parser.add_argument(
        "--seconds", type=float, default=10, help="of a comparison (10)"
    )
    parser.add_argument("--size", nargs=2, type=int, default=(800, 1333))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--cfg-options", nargs="*", default=[])
    parser.add_argument(
        "--data", type=Path, default=Path("none"), help="COCO folder; else made images"
    )
    args = parser.parse_args(arguments)
    device = machine.choose_device(args.device)
    dtype = args.dtype if device == "cuda" else "fp32"
    size = (args.size[0], args.size[1])
    print(machine.describe(device), flush=True)
    failed = False
    for file in args.config:
        print(f"{file.stem}, batch {args.batch}, {size}, {dtype}", flush=True)
        start = time.perf_counter()
        try:
            setting = device, dtype, size, args.batch, args.data
            runner = prepare(file, args.cfg_options, *setting)
            for line in Profile(runner, device, args.seconds).run():
                print(line)
        except Exception:
            traceback.print_exc()
            failed = True
        print(f"  ({time.perf_counter() - start:.0f} s in all)", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
