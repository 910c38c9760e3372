"""The precision in which the stand-ins compute."""

import torch
from torch import Tensor


def at_least_fp32(*tensors: Tensor) -> list[Tensor]:
    """The tensors in one type, the widest of theirs, and fp32 instead of less."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]
