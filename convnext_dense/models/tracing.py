"""Whether PyTorch records or transforms the model instead of running it.

Then a module computes with PyTorch's own operators, which tracers, exporters and
transforms know.
"""

from typing import Any

import torch
from torch.fx import Proxy

# The functions below that ask for a newer PyTorch answer False with an older one.
RECENT = hasattr(torch, "compiler") and hasattr(torch.compiler, "is_exporting")


def is_symbolic(x: Any) -> bool:
    """Whether ``x`` is torch.fx's stand-in for a tensor, which has no shape or type."""
    return isinstance(x, Proxy)


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` runs, such as ``vmap`` or ``grad``."""
    return RECENT and torch._C._are_functorch_transforms_active()


def is_compiling() -> bool:
    """Whether ``torch.compile`` or ``torch.export`` records the operators."""
    return RECENT and torch.compiler.is_compiling()


def is_exporting() -> bool:
    """Whether ``torch.export`` records the operators.

    Up to PyTorch 2.11 ``torch.compiler.is_exporting()`` is True in torch.compile too.
    """
    flag = getattr(torch.compiler, "_is_exporting_flag", None)
    return torch.compiler.is_exporting() if flag is None else flag


def has_forward_gradients() -> bool:
    """Whether ``torch.autograd.forward_ad`` computes gradients in the forward pass."""
    return torch.autograd.forward_ad._current_level >= 0
