"""Measure bytes: kept for the backward pass, allocated at the peak, and in use."""

import gc
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def kept_bytes(forward: Callable, parameters: Iterable[Tensor], device: str) -> int:
    """Bytes that ``forward`` keeps for the backward pass, without parameters.

    On a CPU, autograd's saved tensors count. On a GPU, everything counts that is still
    allocated when only the autograd graph is left.

    Args:
        forward: runs the forward pass and returns a tensor or several.
        parameters: the module's parameters, which do not count.
        device: cpu or cuda.
    """
    if device == "cuda":
        return _allocated_by_graph(forward)
    known = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, int] = {}  # address of a storage -> its bytes

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    del out
    return sum(kept.values())


def _allocated_by_graph(forward: Callable) -> int:
    """Bytes on the GPU that only the autograd graph of ``forward`` holds."""
    gc.collect()
    before = torch.cuda.memory_allocated()
    out = forward()
    # A Python autograd.Function at the end does not hold the nodes before it; the node
    # of m.sum(), which is PyTorch's own, does.
    nodes = [m.sum().grad_fn for m in ([out] if isinstance(out, Tensor) else out)]
    del out  # the nodes keep what the backward pass needs
    gc.collect()
    kept = torch.cuda.memory_allocated() - before
    del nodes
    return kept


def peak_bytes(function: Callable, device: str, own_pool: bool = False) -> int:
    """The most bytes that ``function`` allocates at once, in addition to those before.

    Args:
        function: the function.
        device: cpu or cuda.
        own_pool: whether it replays CUDA graphs from their own pool, see
            ``held_bytes``.
    """
    if device == "cuda":
        before = held_bytes(device, own_pool)
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        if own_pool:
            return torch.cuda.max_memory_reserved() - before
        return torch.cuda.max_memory_allocated() - before
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
    """Bytes of the GPU in use between two steps; 0 on a CPU.

    PyTorch counts the pool of CUDA graphs as reserved, not as allocated. So with
    ``own_pool``, reserved bytes count.
    """
    if device != "cuda":
        return 0
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved() if own_pool else torch.cuda.memory_allocated()
