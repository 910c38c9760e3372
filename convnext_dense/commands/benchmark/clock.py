"""Wall, host and kernel time of functions in one process."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

MIN_ROUNDS, MAX_ROUNDS = 3, 50
PROFILED = 3  # calls


class Times(NamedTuple):
    """Median milliseconds of a call.

    Attributes:
        wall: until all its work is done.
        host: until control returns. A GPU may still be at work then; on a CPU it is
            ``wall``.
    """

    wall: float
    host: float


def in_turn(functions: Sequence[Callable], device: str, seconds: float) -> list[Times]:
    """The times of each function, called in turn: A B C A B C ...

    What slows the machine for a while slows all of them. The first round is not
    timed. Then there are as many rounds as fit into ``seconds``, at least 3 and at
    most 50.
    """
    for function in functions:
        function()
    times = [[] for _ in functions]
    started = time.perf_counter()
    while len(times[0]) < MAX_ROUNDS:
        if len(times[0]) >= MIN_ROUNDS and time.perf_counter() - started > seconds:
            break
        for function, own in zip(functions, times, strict=True):
            wait(device)
            start = time.perf_counter()
            function()
            returned = time.perf_counter()
            wait(device)
            own.append((time.perf_counter() - start, returned - start))
    return [
        Times(*(1e3 * statistics.median(column) for column in zip(*own, strict=True)))
        for own in times
    ]


def kernel_time(function: Callable, device: str) -> tuple[float | None, float | None]:
    """Milliseconds that the GPU's kernels take in a call, and how many there are.

    Counted is what ran on the GPU, by the profiler: kernels, copies and fills. Those
    of a CUDA graph count one by one, though they are started together.

    Returns:
        a pair of None on a CPU, and where the profiler may not look at the GPU.
    """
    if device != "cuda":
        return None, None
    wait(device)
    with profile(activities=[ProfilerActivity.CUDA]) as run:
        for _ in range(PROFILED):
            function()
        wait(device)
    spans = [
        event.time_range.elapsed_us()
        for event in run.events()
        if event.device_type == DeviceType.CUDA
        # A name for several kernels, which are events themselves.
        and not getattr(event, "is_user_annotation", False)
    ]
    if not spans:
        return None, None
    return sum(spans) / 1e3 / PROFILED, len(spans) / PROFILED


def wait(device: str) -> None:
    """Return when the device has done all its work."""
    if device == "cuda":
        torch.cuda.synchronize()
