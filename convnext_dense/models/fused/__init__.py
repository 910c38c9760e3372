"""Faster and leaner versions of what ``block.py`` says.

On a CPU, block by block:

lean_block      the block's two passes: what is kept, what is made again, in which order
block_op        the lean block as an autograd function and as an operator
depthwise       the depthwise 7x7 convolution, its norm and gradients
gelu            GELU and its gradient

On a GPU, stage by stage:

gpu             kernels for a whole stage with its entrance; when plain PyTorch is taken

On both:

patch_conv      the stem's and the downsample layers' convolutions as matrix products
precision       which types are kept and computed with, under autocast too
"""

import importlib.util
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .lean_block import Weights
from .patch_conv import PatchConv2d
from .precision import RECENT

if RECENT:
    from .block_op import apply_block

__all__ = ["PatchConv2d", "Weights", "apply_block", "run_stage", "takes"]

_DEVICES = ("cpu", "cuda")
_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def takes(x: Tensor) -> bool:
    """Whether the fast paths can have ``x``.

    Not what is traced, exported or transformed (those must see PyTorch's own
    operators), not what has no numbers (meta and fake tensors), and nothing with a
    PyTorch older than 2.7.
    """
    return (
        RECENT
        and type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type in _DEVICES
        and x.dtype in _TYPES
        and not torch.jit.is_tracing()
        and not _is_exporting()
        and not torch._C._are_functorch_transforms_active()
    )


def _is_exporting() -> bool:
    """Whether torch.export looks. Up to PyTorch 2.11, torch.compile takes
    ``torch.compiler.is_exporting()`` for true of itself."""
    flag = getattr(torch.compiler, "_is_exporting_flag", None)
    return torch.compiler.is_exporting() if flag is None else flag


def run_stage(
    entrance: nn.Sequential | None,
    blocks: Sequence[nn.Module],
    norm: nn.Module | None,
    x: Tensor,
    graphed: nn.Module | None = None,
) -> tuple[Tensor, Tensor | None] | None:
    """A stage by a GPU's kernels; see ``gpu.dispatch.run_stage``.

    Returns:
        the residual stream and the normed map (None without ``norm``); just None where
        ``x`` is on no GPU or the modules have to be called.
    """
    if not (x.is_cuda or _INTERPRETED) or not _HAS_TRITON or not takes(x):
        return None
    from .gpu import dispatch  # with Triton, which takes its time

    if not dispatch.runs_on(x):
        return None
    stage = dispatch.StageModules(entrance, blocks, norm)
    return dispatch.run_stage(stage, x, graphed)


def prepare(backbone: nn.Module, stages: Callable[[], Sequence], x: Tensor) -> None:
    """Compile what the stages of a backbone need on a GPU, before the first image.

    Args:
        backbone: whose stages they are.
        stages: gives (entrance, blocks, norm) of each, as for ``run_stage``.
        x: the image.
    """
    if not (x.is_cuda and _HAS_TRITON and takes(x)) or torch.compiler.is_compiling():
        return
    from .gpu import dispatch

    dispatch.prepare(
        backbone, lambda: [dispatch.StageModules(*stage) for stage in stages()], x
    )


def _has_triton() -> bool:
    """Whether Triton is installed, which comes with PyTorch for CUDA."""
    try:
        return importlib.util.find_spec("triton") is not None
    except ValueError:  # something else took its name
        return False


_HAS_TRITON = _has_triton()
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # on a CPU, for tests
