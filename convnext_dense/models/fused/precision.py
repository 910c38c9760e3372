"""Which numbers the fast paths keep, and which they compute with."""

from typing import NamedTuple

import torch
from torch import Tensor

# The fast paths are built on what PyTorch 2.7 has; with an older one everything takes
# the written-out modules.
RECENT = hasattr(torch, "compiler") and hasattr(torch.compiler, "is_exporting")


def _multiplied_by_cpu() -> set[torch.dtype]:
    """The half-precision types for which this CPU has instructions."""
    if not (RECENT and torch.backends.mkldnn.is_available()):
        return set()
    onednn = torch.ops.mkldnn
    supported = {
        torch.bfloat16: onednn._is_mkldnn_bf16_supported(),
        torch.float16: onednn._is_mkldnn_fp16_supported(),
    }
    return {dtype for dtype, there in supported.items() if there}


_EMULATED_BY_CPU = {torch.bfloat16, torch.float16} - _multiplied_by_cpu()


class Precision(NamedTuple):
    """``kept``: the type of what waits for the backward pass. ``work``: of products."""

    kept: torch.dtype
    work: torch.dtype


def precision_of(x: Tensor) -> Precision:
    """What autocast asks for on ``x``'s device, or what ``x`` is.

    A CPU without instructions for half precision emulates its products, many
    times slower than in fp32: there only what is kept is halved.
    """
    device = x.device.type
    kept = x.dtype
    if kept != torch.float64 and torch.is_autocast_enabled(device):
        kept = torch.get_autocast_dtype(device)
    if device == "cpu" and kept in _EMULATED_BY_CPU:
        return Precision(kept, torch.float32)
    return Precision(kept, kept)
