"""Tells whether a step's loss and gradients are finite, in one number of the device.

The host reads the number when it needs it. Until then it does not wait for a GPU.
"""

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn


class OnHost:
    """A number that a GPU is still computing, on its way to the host.

    Args:
        number: a tensor of one element.
    """

    def __init__(self, number: Tensor) -> None:
        self._number = number.detach()
        self._copied: torch.cuda.Event | None = None
        if number.is_cuda:
            # Only a copy to pinned memory lets the host go on.
            pinned = torch.empty((), dtype=number.dtype, pin_memory=True)
            self._number = pinned.copy_(self._number, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def is_finite(self) -> bool:
        """Whether the number is finite. Waits until the GPU has computed it."""
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._number.isfinite())


class StepNumbers:
    """The loss and the gradients of a step, of all processes, as one number.

    Args:
        loss: the sum of the losses of the step, of this process.
        parameters: their names and themselves; those without a gradient are left out.
            None if a loss scaler checks the gradients.

    Attributes:
        total: the number, on the loss's device. It is finite if all of them are.
    """

    def __init__(
        self,
        loss: Tensor | float,
        parameters: Sequence[tuple[str, nn.Parameter]] | None,
    ) -> None:
        self.total = torch.as_tensor(loss).detach().float()
        gradients = {
            name: parameter.grad
            for name, parameter in parameters or ()
            # Shards may be empty.
            if parameter.grad is not None and parameter.grad.numel()
        }
        self._names, self._sizes = list(gradients), None
        if gradients:
            self._sizes = _sizes(list(gradients.values()))
            self.total = self.total + self._sizes.sum()
        # Each process has its own losses and, with FSDP, its own shards.
        all_reduce(self.total)
        self._on_host = OnHost(self.total)

    def are_finite(self) -> bool:
        """Whether the losses and gradients of all processes are finite.

        Waits for a GPU, unless something else has waited for this step before.
        """
        return self._on_host.is_finite()

    def not_finite(self) -> list[str]:
        """The names of this process's parameters whose gradients are not finite."""
        if self._sizes is None:
            return []
        finite = self._sizes.isfinite().tolist()
        return [n for n, good in zip(self._names, finite, strict=True) if not good]

    def spoil(self, gradient: Tensor) -> None:
        """Make ``gradient`` NaN if the number is not finite, and else leave it.

        A loss scaler then skips the step.
        """
        gradient.add_((self.total * 0).to(gradient.dtype))


def _sizes(gradients: list[Tensor]) -> Tensor:
    """A number of each gradient: finite if all its elements are. Shape (N,)."""
    if not gradients[0].is_cuda:
        # On a CPU, sums take a tenth of the time of the norms below.
        sums = torch.stack(
            [g.sum(dtype=torch.promote_types(g.dtype, torch.float)) for g in gradients]
        )
        if sums.isfinite().all():
            return sums
    # The sum of finite elements can be infinite, and the largest of them is not.
    largest = torch._foreach_norm(gradients, float("inf"))
    return torch.stack([size.float() for size in largest])
