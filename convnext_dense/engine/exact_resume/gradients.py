"""Saves and restores the gradients that a run has accumulated for its next step."""

import torch
from mmengine.dist import all_reduce_params
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from convnext_dense.utils.distributed import bare


def accumulated(runner: Runner) -> dict[str, torch.Tensor]:
    """The gradients accumulated so far, by parameter name, as the processes' mean.

    The next step will use this mean. The result is empty when no step is pending.
    """
    wrapper = runner.optim_wrapper
    model = runner.model
    if not isinstance(wrapper, OptimWrapper) or wrapper.should_update():
        return {}
    if isinstance(model, FullyShardedDataParallel):
        runner.logger.warning(
            "FSDP: this checkpoint does not have the gradients accumulated so far"
        )
        return {}
    gradients = {
        name: parameter.grad.detach().clone()
        for name, parameter in bare(model).named_parameters()
        if parameter.grad is not None
    }
    all_reduce_params(gradients.values(), op="mean")
    return {name: gradient.cpu() for name, gradient in gradients.items()}


def accumulate(runner: Runner, gradients: dict[str, torch.Tensor]) -> None:
    """Put accumulated gradients back into the model's parameters."""
    for name, parameter in bare(runner.model).named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)
