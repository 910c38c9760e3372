"""Inference and training steps of a backbone, eager, compiled or as CUDA graphs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .measuring import OWN_POOL, SHARED_POOL, Step

EAGER, COMPILED, REDUCE_OVERHEAD = "eager", "compiled", "reduce-overhead"
GRAPHS = "graphs"  # ours alone: ConvNeXt(cuda_graphs=True)
POOLS = {REDUCE_OVERHEAD: SHARED_POOL, GRAPHS: OWN_POOL}


def inference(module: nn.Module, image: Tensor, dtype: str, execution: str) -> Step:
    """A step without gradients.

    Args:
        module: (N, 3, H, W) -> maps; in evaluation mode.
        image: (N, 3, H, W), in the memory format to measure.
        dtype: fp32, or bf16 for autocast.
        execution: one of the four above.
    """
    run, half = _runner(module, execution), _autocast(image, dtype)

    def infer():
        with torch.no_grad(), half:
            run(image)

    return Step(infer, graphs=POOLS.get(execution))


def training(
    module: nn.Module, image: Tensor, dtype: str, execution: str = EAGER
) -> Step:
    """Forward pass, the sum of the maps' means, backward pass; no optimizer.

    The arguments are those of ``inference``; the module is in training mode.
    """
    run, half = _runner(module, execution), _autocast(image, dtype)

    def forward():
        with half:
            return run(image)

    def train():
        sum(m.float().mean() for m in forward()).backward()
        module.zero_grad()

    return Step(train, forward, list(module.parameters()), POOLS.get(execution))


def _autocast(image, dtype):
    return torch.autocast(image.device.type, torch.bfloat16, enabled=dtype == "bf16")


def _runner(module: nn.Module, execution: str) -> Callable:
    if execution == COMPILED:
        return torch.compile(module)
    if execution != REDUCE_OVERHEAD:
        return module
    compiled = torch.compile(module, mode=REDUCE_OVERHEAD)

    def run(image):
        # What the last step returned may be overwritten.
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(image)

    return run
