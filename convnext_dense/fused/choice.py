"""Which of several ways to compute the same is the fastest here, for each shape.

As ``torch.backends.cudnn.benchmark`` does for convolutions: the first call with a
shape times every way on the GPU it runs on, later ones take the fastest.
"""

import contextlib
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_chosen: dict[tuple, int] = {}
_ROUNDS = 5


def fastest(name: str, ways: Sequence[Callable], *arguments):
    """What the fastest of ``ways`` makes of ``arguments``.

    The first way is plain PyTorch. It is taken on a CPU, where PyTorch is asked to be
    deterministic (another run might choose another way), while a CUDA graph is
    recorded for a shape not seen before, and wherever another way fails.

    Args:
        name: of what is computed.
        ways: functions of ``arguments`` with the same result.
    """
    if (
        len(ways) == 1
        or not _is_gpu(arguments[0])
        or torch.are_deterministic_algorithms_enabled()
        or torch.backends.cudnn.deterministic
    ):
        return ways[0](*arguments)
    with _device_of(arguments[0]):  # a kernel starts on the current one
        return _fastest(name, ways, arguments)


def _fastest(name, ways, arguments):
    key = name, arguments[0].device.index, *map(_kind, arguments)
    if key not in _chosen:
        if torch.cuda.is_current_stream_capturing():
            return ways[0](*arguments)
        _chosen[key] = _measure(ways, arguments)
    return ways[_chosen[key]](*arguments)


def _device_of(tensor: Tensor):
    if tensor.is_cuda:
        return torch.cuda.device(tensor.device)
    return contextlib.nullcontext()


def _is_gpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def _kind(argument):
    """What of an argument decides the speed: sizes to the next power of two.

    So images of ever new sizes are not timed each.
    """
    if not isinstance(argument, Tensor):
        return None
    sizes = (size if size < 2 else (size - 1).bit_length() for size in argument.shape)
    return argument.dtype, *sizes


def _measure(ways, arguments) -> int:
    times = []
    for way in ways:
        try:
            times.append(_time(way, arguments))
        except Exception:  # whatever a kernel's compiler can raise: not this way
            times.append(float("inf"))
    return times.index(min(times))


def _time(way, arguments) -> float:
    # Of copies: a way may write into what it is given.
    copies = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    way(*copies)  # compiles
    taken = []
    for _ in range(_ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        way(*copies)
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end))
    return statistics.median(taken)
