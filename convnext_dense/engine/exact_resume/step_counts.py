"""Puts an optimizer's counts of its steps back where torch has them."""

from mmengine.optim import OptimWrapper
from torch import Tensor


def counts_on_host(wrapper: object) -> None:
    """Move the counts of Adam and its kind from a GPU to the host.

    torch counts the steps of each parameter in a tensor of the host. mmengine loads a
    checkpoint onto the GPU, and with it the counts. torch leaves them there, and at
    each step the host then waits for each of them.

    Args:
        wrapper: of the run, after its state was loaded.
    """
    if not isinstance(wrapper, OptimWrapper):
        return
    for group in wrapper.optimizer.param_groups:
        if group.get("fused") or group.get("capturable"):
            continue  # these count on the GPU
        for parameter in group["params"]:
            state = wrapper.optimizer.state.get(parameter, {})
            count = state.get("step")
            if isinstance(count, Tensor):
                state["step"] = count.cpu()
