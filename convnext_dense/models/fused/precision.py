"""The types that the fast paths keep and compute with."""

import platform
from typing import NamedTuple

import torch
from torch import Tensor

from ..tracing import RECENT


def _fast_on_this_cpu() -> set[torch.dtype]:
    """The half-precision types whose products are no slower than fp32's.

    oneDNN says which types this CPU multiplies. For bf16 that is too generous: it
    names every x86 CPU with AVX-512, also those that only convert to fp32 and back.
    Times of one block on one core (C = 384, 24 x 24, oneDNN 3.13, autocast, an Intel
    CPU with AMX whose instructions were limited by ONEDNN_MAX_CPU_ISA), forward and
    training step, with products in half precision against fp32:

    - bf16, AMX: 7 against 15 ms, 28 against 52 ms;
    - bf16, AVX512_CORE_BF16: 25 against 14 ms, 81 against 56 ms;
    - bf16, AVX512_CORE: 63 against 17 ms, 199 against 60 ms;
    - bf16 and fp16 with less: single products 4 to 60 times as slow;
    - fp16, AVX512_CORE_FP16: 14 against 13 ms, 49 against 50 ms.

    So bf16 needs AMX on x86. CPUs of other families were not measured; there
    oneDNN's answer counts.
    """
    if not (RECENT and torch.backends.mkldnn.is_available()):
        return set()
    onednn = torch.ops.mkldnn
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    bf16 = not x86 or torch.cpu._is_amx_tile_supported()
    fast = {
        torch.bfloat16: bf16 and onednn._is_mkldnn_bf16_supported(),
        torch.float16: onednn._is_mkldnn_fp16_supported(),
    }
    return {dtype for dtype, is_fast in fast.items() if is_fast}


_SLOW_ON_CPU = {torch.bfloat16, torch.float16} - _fast_on_this_cpu()


class Precision(NamedTuple):
    """The types of one computation.

    Attributes:
        kept: the type of tensors that are kept for the backward pass.
        work: the type in which products are computed.
    """

    kept: torch.dtype
    work: torch.dtype


def precision_of(x: Tensor) -> Precision:
    """The types to compute with for the input ``x``.

    ``kept`` is autocast's type on the device of ``x``, or the type of ``x`` without
    autocast. ``work`` is the same, except on a CPU that multiplies this type more
    slowly than fp32: there products are in fp32.
    """
    device = x.device.type
    kept = x.dtype
    if kept != torch.float64 and torch.is_autocast_enabled(device):
        kept = torch.get_autocast_dtype(device)
    if device == "cpu" and kept in _SLOW_ON_CPU:
        return Precision(kept, torch.float32)
    return Precision(kept, kept)
