"""Write a checkpoint so that it is whole or not there."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from convnext_dense.utils import files

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


def write(weights: Mapping[str, Tensor], path: Path, meta: Mapping | None = None):
    """Write ``weights`` to ``path``.

    Args:
        path: ends in one of ``SUFFIXES``.
        meta: written beside the weights, under ``meta`` and ``state_dict`` as
            mmengine does; ``.safetensors`` has no place for it.

    Raises:
        InputError: it cannot be written; what was at ``path`` is still there.
    """
    # Views of one storage, and strides, would be written as such.
    weights = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }
    with files.whole(path) as partial:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(weights, partial, metadata={"format": "pt"})
        else:
            content = dict(meta=meta, state_dict=weights) if meta else weights
            torch.save(content, partial)
