"""The mathematics of ``block.py``, faster and with less memory.

On a CPU, block by block:

lean_block      the block's two passes: what is kept and what is computed again
block_op        the lean block as an autograd function and as an operator
depthwise       the depthwise 7x7 convolution, its norm and gradients
gelu            GELU and its gradient

On a GPU, stage by stage:

gpu             kernels for a whole stage with its stem or downsample layer

On both:

patch_conv      the convolutions of stem and downsample layers as matrix products
precision       the types that are kept and computed with, also under autocast
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..tracing import (
    RECENT,
    has_forward_gradients,
    is_exporting,
    is_transformed,
)
from .lean_block import Weights
from .patch_conv import PatchConv2d

if RECENT:
    from .block_op import apply_block

__all__ = ["PatchConv2d", "Weights", "apply_block", "run_stage", "takes"]

_DEVICES = ("cpu", "cuda")
_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def takes(x: Tensor) -> bool:
    """Whether the fast paths can compute on ``x``.

    They cannot while PyTorch traces, exports or transforms the model or computes
    gradients in the forward pass (these need PyTorch's own operators), on meta and fake
    tensors (which have no numbers), and with a PyTorch older than 2.7.
    """
    return (
        RECENT
        and type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type in _DEVICES
        and x.dtype in _TYPES
        and not torch.jit.is_tracing()
        and not is_exporting()
        and not is_transformed()
        and not has_forward_gradients()
    )


def run_stage(
    entrance: nn.Sequential | None,
    blocks: Sequence[nn.Module] | nn.Sequential,
    norm: nn.Module | None,
    x: Tensor,
    graphed: nn.Module | None = None,
) -> tuple[Tensor, Tensor | None] | None:
    """Compute a stage by a GPU's kernels; see ``gpu.dispatch.run_stage``.

    Args:
        entrance: the stem or the downsample layer; None if ``x`` has passed it.
        blocks: the stage's blocks.
        norm: the norm of the output map, if the stage has one.
        x: the stage's input, (N, C, H, W).
        graphed: the backbone whose CUDA graphs may replay the stage, if it may.

    Returns:
        the stage's output and its normed map (None without ``norm``); None alone where
        ``x`` is on no GPU or the modules have to be called.
    """
    if not (x.is_cuda or _INTERPRETED) or not _HAS_TRITON or not takes(x):
        return None
    from .gpu import dispatch  # imports Triton, which is slow

    if not dispatch.runs_on(x):
        return None
    stage = dispatch.StageModules(entrance, cast(Sequence, blocks), norm)
    return dispatch.run_stage(stage, x, graphed)


def prepare(backbone: nn.Module, stages: Callable[[], Sequence], x: Tensor) -> None:
    """Compile the kernels that a backbone's stages need on a GPU, before the first run.

    Args:
        backbone: the backbone.
        stages: returns (entrance, blocks, norm) of each stage, as for ``run_stage``.
        x: the image, (N, in_channels, H, W).
    """
    if not (x.is_cuda and _HAS_TRITON and takes(x)) or torch.compiler.is_compiling():
        return
    from .gpu import dispatch

    dispatch.prepare(
        backbone, lambda: [dispatch.StageModules(*stage) for stage in stages()], x
    )


def _has_triton() -> bool:
    """Whether Triton is installed. It comes with PyTorch for CUDA."""
    try:
        return importlib.util.find_spec("triton") is not None
    except ValueError:  # sys.modules has something else of its name
        return False


_HAS_TRITON = _has_triton()
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # on a CPU, for tests
