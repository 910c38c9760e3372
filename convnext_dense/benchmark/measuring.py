"""All figures of several steps, which are measured in turn."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from . import clock, memory

# Compiled code and CUDA graphs are complete at the third step.
WARM_UP = {"cpu": 1, "cuda": 3}


class Step(NamedTuple):
    """What is measured.

    Attributes:
        run: makes a whole step.
        forward: makes its forward pass and returns the maps; None where nothing is
            kept for a backward pass, or where it is not asked for.
        parameters: of the module.
        graphs: whether it replays CUDA graphs.
    """

    run: Callable[[], None]
    forward: Callable[[], Sequence[Tensor]] | None = None
    parameters: Iterable[Tensor] = ()
    graphs: bool = False


class Figures(NamedTuple):
    """A step in figures; None where there is nothing to measure.

    Attributes:
        ms: milliseconds until the step's work is done, the median.
        host_ms: until control returns.
        kernel_ms: the sum over the GPU's kernels, by the profiler.
        launches: kernels, copies and fills that run on the GPU.
        kept: bytes kept for the backward pass, without parameters. None with CUDA
            graphs, in whose pool they are: ``peak`` has them.
        peak: the most bytes allocated at once, beside the weights. What a step leaves
            allocated counts too, such as the pool of its CUDA graphs.
    """

    ms: float
    host_ms: float
    kernel_ms: float | None
    launches: float | None
    kept: int | None
    peak: int


def measure(steps: Sequence[Step], device: str, seconds: float) -> list[Figures]:
    """The figures of each step; times are of rounds in which all take their turn.

    Args:
        steps: what to measure.
        device: cpu or cuda.
        seconds: how long to time them, all together.
    """
    held = [_warm_up(step, device) for step in steps]
    times = clock.in_turn([step.run for step in steps], device, seconds)
    figures = []
    for step, (wall, host), left in zip(steps, times, held, strict=True):
        kept = None
        if step.forward and not step.graphs:
            kept = memory.kept_bytes(step.forward, step.parameters, device)
        peak = left + memory.peak_bytes(step.run, device, step.graphs)
        kernel_ms, launches = clock.kernel_time(step.run, device)
        figures.append(Figures(wall, host, kernel_ms, launches, kept, peak))
    return figures


def _warm_up(step: Step, device: str) -> int:
    """Bytes that the first steps leave allocated."""
    before = memory.held_bytes(device, step.graphs)
    for _ in range(WARM_UP[device]):
        step.run()
    return max(memory.held_bytes(device, step.graphs) - before, 0)
