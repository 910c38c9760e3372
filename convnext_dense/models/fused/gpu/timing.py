"""Times a stage's kernels against plain PyTorch.

Calls follow each other without synchronization and the host's time counts, as in use.
"""

import time
from collections.abc import Callable

import torch

from . import reference
from .autograd import apply_stage
from .description import STEM
from .stage import Stage
from .stage_arguments import StageArguments

_WARM_UP, _CALLS = 3, 10


@torch.inference_mode(False)  # inference mode does not allow a backward pass
def times(stage: Stage, rows: int, width: int, train: bool) -> list[float] | None:
    """Time a stage's kernels and plain PyTorch.

    Args:
        stage: a stage on a GPU.
        rows: the pixels of its maps.
        width: the width of its maps.
        train: whether to time the backward pass too.

    Returns:
        Milliseconds of a call by kernels and in plain PyTorch, or None if there is too
        little memory.
    """
    spec, types = stage.spec, stage.types
    assert stage.device is not None
    device = torch.device("cuda", stage.device)
    height = max(rows // width, 1)
    try:
        x = torch.randn(
            1, spec.before, height * spec.stride, width * spec.stride, device=device
        )
        dtype = torch.float32 if spec.entrance == STEM else types.stream
        x = x.to(dtype, memory_format=torch.channels_last)
        x.requires_grad_(spec.entrance != STEM and train)
        parameters = reference.random_parameters(
            spec, types.parameters, device, stage.places.strides
        )
        shape = stage.shape_of(x, False, types.stream if spec.norm else None)
        arguments = StageArguments.of(parameters)
        half = torch.autocast(
            "cuda", types.work, enabled=types.work != types.parameters or types.split
        )

        def kernels():
            with torch.autocast("cuda", enabled=False):
                return apply_stage(stage, shape, x, arguments)

        def plain():
            with half:
                return reference.run(spec, x, parameters, None)

        leaves = [t for t in (x, *parameters) if t.requires_grad]
        return [_time(call, leaves, train, device) for call in (kernels, plain)]
    except torch.cuda.OutOfMemoryError:
        return None


def _time(call: Callable, leaves: list, train: bool, device: torch.device) -> float:
    """Milliseconds of a call, with its backward pass if ``train``."""

    def step():
        with torch.set_grad_enabled(train):
            outs = [t for t in call() if t is not None]
        if train:
            torch.autograd.grad(outs, leaves, outs)

    for _ in range(_WARM_UP):
        step()
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(_CALLS):
        step()
    torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start) / _CALLS
