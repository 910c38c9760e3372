"""All figures of several steps, which are measured in turn."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from . import clock, memory

# Where the memory of a step's CUDA graphs is.
OWN_POOL, SHARED_POOL = "own pool", "shared pool"


class Step(NamedTuple):
    """What is measured.

    Attributes:
        run: makes a whole step.
        forward: makes its forward pass and returns the maps; None where nothing is
            kept for a backward pass, or where it is not asked for.
        parameters: of the module.
        graphs: where the memory of its CUDA graphs is, if it replays any: in a pool
            of its own, or in that which all that torch.compile makes share.
    """

    run: Callable[[], None]
    forward: Callable[[], Sequence[Tensor]] | None = None
    parameters: Iterable[Tensor] = ()
    graphs: str | None = None


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
            allocated counts too, such as its own pool of CUDA graphs; in a shared
            pool it is what is allocated while the graphs are recorded.
    """

    ms: float
    host_ms: float
    kernel_ms: float | None
    launches: float | None
    kept: int | None
    peak: int | None


def measure(steps: Sequence[Step], device: str, seconds: float) -> list[Figures]:
    """The figures of each step; times are of rounds in which all take their turn.

    Args:
        steps: what to measure.
        device: cpu or cuda.
        seconds: how long to time them, all together.
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
    """Bytes that the first steps leave allocated, and the most while graphs are
    recorded.

    torch.compile compiles in the first step, records its graphs in the second and
    replays them from the third on. A CPU has no graphs and makes one step.
    """
    own_pool = step.graphs == OWN_POOL
    before = memory.held_bytes(device, own_pool)
    step.run()
    recording = None
    if device == "cuda":
        recording = memory.peak_bytes(lambda: (step.run(), step.run()), device)
    return max(memory.held_bytes(device, own_pool) - before, 0), recording
