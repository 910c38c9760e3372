"""Measure the wall, host and kernel time of functions, in one process."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

MIN_ROUNDS, MAX_ROUNDS = 3, 50
PROFILED = 3  # calls that the profiler records


class Times(NamedTuple):
    """Times of a call, the medians of several, in milliseconds.

    Attributes:
        wall: until all its work is done.
        host: until the call returns. A GPU may still be working then; on a CPU it is
            equal to ``wall``.
    """

    wall: float
    host: float


def in_turn(functions: Sequence[Callable], device: str, seconds: float) -> list[Times]:
    """Time several functions, which are called in turn: A B C A B C ...

    So whatever slows the machine for a while slows all of them. The first round is not
    timed. Then there are as many rounds as fit into ``seconds``, at least 3 and at
    most 50.
    """
    for function in functions:
        function()
    times: list[list[tuple[float, float]]] = [[] for _ in functions]
    started = time.perf_counter()
    while len(times[0]) < MAX_ROUNDS:
        if len(times[0]) >= MIN_ROUNDS and time.perf_counter() - started > seconds:
            break
        for function, calls in zip(functions, times, strict=True):
            wait(device)
            start = time.perf_counter()
            function()
            returned = time.perf_counter()
            wait(device)
            calls.append((time.perf_counter() - start, returned - start))
    return [
        Times(*(1e3 * statistics.median(column) for column in zip(*calls, strict=True)))
        for calls in times
    ]


def kernel_time(function: Callable, device: str) -> tuple[float | None, float | None]:
    """The time of the GPU's kernels in a call, and their number.

    The profiler counts everything that runs on the GPU: kernels, copies and fills.
    Those of a CUDA graph count one by one, although they are launched together.

    Returns:
        milliseconds and number; None and None on a CPU, or if the profiler has no
        permission to observe the GPU.
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
        # An annotation spans several kernels, which are events themselves.
        and not getattr(event, "is_user_annotation", False)
    ]
    if not spans:
        return None, None
    return sum(spans) / 1e3 / PROFILED, len(spans) / PROFILED


def wait(device: str) -> None:
    """Wait until the device has done all its work."""
    if device == "cuda":
        torch.cuda.synchronize()
