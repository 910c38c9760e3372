"""Bytes that a function keeps for the backward pass, needs at its peak, and holds."""

import gc
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def kept_bytes(forward: Callable, parameters: Iterable[Tensor], device: str) -> int:
    """Bytes that ``forward`` keeps for the backward pass, without parameters.

    Args:
        forward: returns a tensor or several.
        parameters: of the module, which are there anyway.
        device: cpu or cuda. On a GPU it is what the allocator has given away and
            not got back when only the graph is left, wherever it is held.
    """
    if device == "cuda":
        return _allocated_by_graph(forward)
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


def _allocated_by_graph(forward) -> int:
    gc.collect()
    before = torch.cuda.memory_allocated()
    out = forward()
    # A node of Python holds nothing before it, one of PyTorch's own does.
    nodes = [m.sum().grad_fn for m in ([out] if isinstance(out, Tensor) else out)]
    del out  # the nodes keep what the backward pass needs
    gc.collect()
    kept = torch.cuda.memory_allocated() - before
    del nodes
    return kept


def peak_bytes(function: Callable, device: str, own_pool: bool = False) -> int:
    """The most bytes that ``function`` had allocated at once, above what was before.

    Args:
        own_pool: it replays CUDA graphs from a pool of its own. See ``held_bytes``.
    """
    if device == "cuda":
        before = held_bytes(device, own_pool)
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        most = (
            torch.cuda.max_memory_reserved
            if own_pool
            else torch.cuda.max_memory_allocated
        )
        return most() - before
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        function()
    events = run.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    peak = now = 0
    for _, change in sorted(changes, key=lambda event: event[0]):
        now += change
        peak = max(peak, now)
    return peak


def held_bytes(device: str, own_pool: bool) -> int:
    """Bytes of the GPU that are in use between two steps; 0 on a CPU.

    A pool of CUDA graphs stays, which PyTorch counts as reserved and not as
    allocated: with ``own_pool``, what is reserved counts.
    """
    if device != "cuda":
        return 0
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved() if own_pool else torch.cuda.memory_allocated()
