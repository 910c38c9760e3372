"""A stage's kernels beside plain PyTorch, timed as they are used: many launches back to
back, and the host's time in it."""

import time
from collections.abc import Callable

import torch

from . import reference
from .autograd import apply_stage
from .given import Given
from .stage import Stage

_WARM_UP, _CALLS = 3, 10


@torch.inference_mode(False)  # inference mode would allow no backward pass
def times(stage: Stage, rows: int, width: int, train: bool) -> list[float] | None:
    """Milliseconds of a call of the stage, and of the same in plain PyTorch.

    Args:
        stage: on a GPU.
        rows: pixels of its maps.
        width: of the maps.
        train: forward and backward pass, or the forward pass alone.

    Returns:
        both, or None if there is too little memory for either.
    """
    kind, types = stage.kind, stage.types
    device = torch.device("cuda", stage.device)
    stride = {"stem": 4, "downsample": 2}.get(kind.entrance, 1)
    height = max(rows // width, 1)
    try:
        x = torch.randn(1, kind.before, height * stride, width * stride, device=device)
        dtype = torch.float32 if kind.entrance == "stem" else types.stream
        x = x.to(dtype, memory_format=torch.channels_last)
        x.requires_grad_(kind.entrance != "stem" and train)
        parameters = reference.random_parameters(
            kind, types.parameters, device, stage.places.strides
        )
        shape = stage.shape_of(x, False, types.stream if kind.norm else None)
        given = Given.of(parameters)
        half = torch.autocast(
            "cuda", types.work, enabled=types.work != types.parameters or types.split
        )

        def mine():
            with torch.autocast("cuda", enabled=False):
                return apply_stage(stage, shape, x, given)

        def plain():
            with half:
                return reference.run(kind, x, parameters, None)

        leaves = [t for t in (x, *parameters) if t.requires_grad]
        return [_time(call, leaves, train, device) for call in (mine, plain)]
    except torch.cuda.OutOfMemoryError:
        return None


def _time(call: Callable, leaves: list, train: bool, device: torch.device) -> float:
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
