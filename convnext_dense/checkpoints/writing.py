"""Write a checkpoint file that is either complete or absent."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from convnext_dense.utils import files, torch_files

from . import safetensors_file

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


def write(
    weights: Mapping[str, Tensor], path: Path, meta: Mapping | None = None
) -> None:
    """Write ``weights`` to ``path``.

    Args:
        weights: names and tensors.
        path: ends in one of ``SUFFIXES``.
        meta: stored beside the weights, under the keys ``meta`` and ``state_dict`` as
            mmengine does. The header of a ``.safetensors`` file takes the config and
            the classes from it.

    Raises:
        InputError: the file cannot be written. A file that was at ``path`` is kept.
    """
    # Tensors that share memory, or have strides, would be stored that way.
    weights = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }
    with files.whole(path) as partial:
        if path.suffix == ".safetensors":
            metadata = safetensors_file.metadata(meta)
            safetensors.torch.save_file(weights, partial, metadata=metadata)
        else:
            content = dict(meta=meta, state_dict=weights) if meta else weights
            with torch_files.open_to_write(partial) as file:
                torch.save(content, file)
