"""Drop path, also called stochastic depth (arXiv 1603.09382)."""

from torch import Tensor, nn


class DropPath(nn.Module):
    """Set each sample to 0 with a probability, and scale the others up, in training.

    It draws the same random numbers as torchvision's ``StochasticDepth`` with
    ``mode="row"``. Under ``torch.vmap(..., randomness="different")`` each call inside
    draws its own, which torchvision's refuses.

    Args:
        p: the probability, in [0, 1).

    Shapes: (N, ...) -> (N, ...).
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of ``x``, (N, ...)."""
        if not self.training or self.p == 0:
            return x
        keep = 1 - self.p
        # vmap has a random number for each call only in a tensor that is made from x.
        factor = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * factor.div_(keep)

    def extra_repr(self) -> str:
        """The probability, for ``print``."""
        return f"p={self.p}"
