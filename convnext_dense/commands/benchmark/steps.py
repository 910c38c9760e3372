"""Inference and training steps of a backbone: eager, compiled or as CUDA graphs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .measuring import OWN_POOL, SHARED_POOL, Step

EAGER, COMPILED, REDUCE_OVERHEAD = "eager", "compiled", "reduce-overhead"
GRAPHS = "graphs"  # ConvNeXt(cuda_graphs=True), of this package alone
POOLS = {REDUCE_OVERHEAD: SHARED_POOL, GRAPHS: OWN_POOL}


def inference(module: nn.Module, image: Tensor, dtype: str, execution: str) -> Step:
    """A forward pass without gradients.

    Args:
        module: image (N, 3, H, W) -> maps; in evaluation mode.
        image: (N, 3, H, W), in the memory format to measure.
        dtype: fp32, or bf16, which runs under autocast.
        execution: EAGER, COMPILED, REDUCE_OVERHEAD or GRAPHS.
    """
    run, autocast = _runner(module, execution), _autocast(image, dtype)

    def infer() -> None:
        with torch.no_grad(), autocast:
            run(image)

    return Step(infer, graphs=POOLS.get(execution))


def training(
    module: nn.Module, image: Tensor, dtype: str, execution: str = EAGER
) -> Step:
    """A forward and a backward pass of the sum of the maps' means; no optimizer.

    Args:
        module: as of ``inference``, but in training mode.
        image: as of ``inference``.
        dtype: as of ``inference``.
        execution: as of ``inference``.
    """
    run, autocast = _runner(module, execution), _autocast(image, dtype)

    def forward() -> Sequence[Tensor]:
        with autocast:
            return run(image)

    def train():
        sum(m.float().mean() for m in forward()).backward()
        module.zero_grad()

    return Step(train, forward, list(module.parameters()), POOLS.get(execution))


def _autocast(image: Tensor, dtype: str) -> torch.autocast:
    return torch.autocast(image.device.type, torch.bfloat16, enabled=dtype == "bf16")


def _runner(module: nn.Module, execution: str) -> Callable:
    """A function that runs ``module`` on an image in the given way."""
    if execution == COMPILED:
        return torch.compile(module)
    if execution != REDUCE_OVERHEAD:
        return module
    compiled = torch.compile(module, mode=REDUCE_OVERHEAD)

    def run(image):
        # Allow that the graphs overwrite what the last step returned.
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(image)

    return run
