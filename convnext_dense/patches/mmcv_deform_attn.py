"""Compute mmcv's deformable attention on a GPU in every float type.

mmcv's module calls ``MultiScaleDeformableAttnFunction`` on a GPU. Its positions have
the value's type, which for bf16 is too coarse. The maintained stack's module takes
``multi_scale_deformable_attn_pytorch`` for bf16 instead, and warns. That function is
slow, waits for the GPU, and its positions are bf16 too.

Where mmcv has no compiled ops, this package's autograd function replaces the first. On
a GPU it also computes the second: with compiled ops too, since these have no bf16. On a
CPU the second remains mmcv's own, which an export can trace.
"""

import functools
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Callable, Sequence

from torch import Tensor

from . import mmcv_ops

MODULE = "mmcv.ops.multi_scale_deform_attn"
FUNCTION = "MultiScaleDeformableAttnFunction"
PYTORCH = "multi_scale_deformable_attn_pytorch"


def install() -> None:
    """Replace the two names in ``MODULE``, now or when it is imported."""
    # The warning is wrong: nothing falls back.
    warnings.filterwarnings("ignore", f"{FUNCTION} does not support torch.bfloat16")
    if MODULE in sys.modules:
        replace(sys.modules[MODULE])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def replace(module: types.ModuleType) -> None:
    """Replace the two names in ``MODULE``; a second call changes nothing."""
    mmcvs = getattr(module, PYTORCH)
    if not hasattr(mmcvs, "__wrapped__"):
        setattr(module, PYTORCH, _fast_on_gpu(mmcvs))
    if mmcv_ops.is_stand_in(module.ext_module):
        from convnext_dense.ops import deform_attn

        setattr(module, FUNCTION, deform_attn.MultiScaleDeformableAttnFunction)


def _fast_on_gpu(mmcvs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """mmcv's PyTorch function, with this package's op for tensors on a GPU."""

    @functools.wraps(mmcvs)
    def multi_scale_deformable_attn_pytorch(
        value: Tensor,
        value_spatial_shapes: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
    ) -> Tensor:
        inputs = value, value_spatial_shapes, sampling_locations, attention_weights
        if not _on_gpu(value):
            return mmcvs(*inputs)
        from convnext_dense.ops import deform_attn

        return deform_attn.attend(*inputs)

    return multi_scale_deformable_attn_pytorch


def _on_gpu(value: Tensor) -> bool:
    return value.is_cuda


class _Finder(importlib.abc.MetaPathFinder):
    """Finds ``MODULE`` as Python does, and replaces the names after its import."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        mmcvs = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            mmcvs(module)
            replace(module)

        setattr(spec.loader, "exec_module", exec_module)  # noqa: B010
        return spec
