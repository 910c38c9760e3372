"""Time and memory of several functions, measured in turn in one process."""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

WARM_UP = 2
MIN_ROUNDS, MAX_ROUNDS = 3, 50


def in_turn(functions: Sequence[Callable], device: str, seconds: float) -> list[float]:
    """Median milliseconds of each function, called in turn: A B C A B C ...

    What slows the machine for a while slows all of them. Every function is called
    ``WARM_UP`` times first; then there are as many rounds as fit into ``seconds``,
    at least 3 and at most 50.
    """
    for function in functions:
        for _ in range(WARM_UP):
            function()
    times = [[] for _ in functions]
    started = time.perf_counter()
    while len(times[0]) < MAX_ROUNDS:
        if len(times[0]) >= MIN_ROUNDS and time.perf_counter() - started > seconds:
            break
        for function, own in zip(functions, times, strict=True):
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            own.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]


def kept_bytes(forward: Callable, parameters: Iterable[Tensor]) -> int:
    """Bytes of the storages that ``forward`` keeps for the backward pass, without
    parameters."""
    known = {p.untyped_storage().data_ptr() for p in parameters}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    del out
    return sum(kept.values())


def peak_bytes(function: Callable, device: str) -> int:
    """The most bytes that were allocated at once by ``function``, above what was
    before."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        function()
    events = run.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    peak = now = 0
    for _, change in sorted(changes, key=lambda event: event[0]):
        now += change
        peak = max(peak, now)
    return peak


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
