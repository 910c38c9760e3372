"""Prints what a training step consists of: ``python -m tests.programs.step_profile``.

For each config: the time of a step by parts (data, backbone, neck, heads, losses,
optimizer), the host time of each hook, the stand-ins for mmcv's compiled ops, the
synchronisations of a GPU by the line that causes them, and a comparison of steps with
this package's hooks and without them, which take turns on the same batches.

On a CPU small images make it end, with fewer regions in the same proportion:
  --size 256 320 --batch 1 --cfg-options model.train_cfg.rcnn.0.sampler.num=40 ...
"""

import argparse
import collections
import copy
import itertools
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from convnext_dense.commands.benchmark import machine

from ..helpers import synchronisations
from ..helpers.paths import ROOT
from ..helpers.synchronisations import OURS
from .step_parts import Clock, Spans, marked, report
from .step_runs import prepare

CONFIGS = (
    ROOT / "configs/det/cascade_mask_rcnn_convnext_t_coco.py",
    ROOT / "configs/det/dino_4scale_convnext_t_coco.py",
)
WARM_UP = 4  # steps before anything is measured


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
        with marked(self.runner, spans):
            total = statistics.mean(self._timed_step() for _ in range(steps))
        self.lines += report(spans, steps, total)

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
