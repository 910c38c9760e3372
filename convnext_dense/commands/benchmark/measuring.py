"""Measure the time and memory of several steps, which run in turn."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from . import clock, memory

# Which memory pool a step's CUDA graphs use.
OWN_POOL, SHARED_POOL = "own pool", "shared pool"


class Step(NamedTuple):
    """A step to measure.

    Attributes:
        run: runs the whole step.
        forward: runs the forward pass and returns the maps; None if the step has no
            backward pass, or if kept bytes are not to be measured.
        parameters: the module's parameters.
        graphs: the memory pool of its CUDA graphs: ``OWN_POOL``, or ``SHARED_POOL``
            for the pool that all networks of torch.compile share. None if it replays
            no graphs.
    """

    run: Callable[[], None]
    forward: Callable[[], Sequence[Tensor]] | None = None
    parameters: Iterable[Tensor] = ()
    graphs: str | None = None


class Figures(NamedTuple):
    """The figures of a step; None for what cannot be measured.

    Attributes:
        ms: median time until the step's work is done, in milliseconds.
        host_ms: median time until the call returns, in milliseconds.
        kernel_ms: total time of the GPU's kernels, from the profiler.
        launches: number of kernels, copies and fills that run on the GPU.
        kept: bytes kept for the backward pass, without the parameters. None with CUDA
            graphs: they keep them in their pool, which ``peak`` includes.
        peak: the most bytes allocated at once, without the weights. It includes what a
            step leaves allocated, such as its own pool of CUDA graphs. With a shared
            pool it is what is allocated while the graphs are recorded.
    """

    ms: float
    host_ms: float
    kernel_ms: float | None
    launches: float | None
    kept: int | None
    peak: int | None


def measure(steps: Sequence[Step], device: str, seconds: float) -> list[Figures]:
    """Measure each step. For times, the steps run in turn.

    Args:
        steps: the steps.
        device: cpu or cuda.
        seconds: time to spend on timing, for all steps together.
    """
    warm = [_warm_up(step, device) for step in steps]
    times = clock.in_turn([step.run for step in steps], device, seconds)
    figures = []
    for step, (wall, host), (left, peak) in zip(steps, times, warm, strict=True):
        kept = None
        if step.forward and not step.graphs:
            kept = memory.kept_bytes(step.forward, step.parameters, device)
        if step.graphs != SHARED_POOL:
            own_pool = step.graphs == OWN_POOL
            peak = left + memory.peak_bytes(step.run, device, own_pool)
        kernel_ms, launches = clock.kernel_time(step.run, device)
        figures.append(Figures(wall, host, kernel_ms, launches, kept, peak))
    return figures


def _warm_up(step: Step, device: str) -> tuple[int, int | None]:
    """Run the first steps, in which torch.compile compiles and records its graphs.

    It compiles in the first step, records the graphs in the second and replays them
    from the third on. A CPU has no graphs, and one step is enough.

    Returns:
        bytes that the steps leave allocated, and the most bytes allocated while graphs
        are recorded (None on a CPU).
    """
    own_pool = step.graphs == OWN_POOL
    before = memory.held_bytes(device, own_pool)
    step.run()
    recording = None
    if device == "cuda":
        recording = memory.peak_bytes(lambda: (step.run(), step.run()), device)
    return max(memory.held_bytes(device, own_pool) - before, 0), recording
