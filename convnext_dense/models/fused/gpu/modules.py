"""Reads a stage's modules: spec, number types, parameters, and if kernels may run."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ...layer_norm import LayerNorm2d
from ..patch_conv import PatchConv2d
from .description import DOWNSAMPLE, NONE, STEM, StageSpec, Types

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_FLOATS = torch.float32, torch.bfloat16, torch.float16
_STEM_CHANNELS = 4  # the most image channels that the stem's kernels take


class StageModules(NamedTuple):
    """The modules of a stage.

    Attributes:
        entrance: the stem or the downsample layer, or None for a block alone.
        blocks: ``block.Block``s, in an ``nn.Sequential`` or in a tuple.
        norm: the norm of the output map, or None.
    """

    entrance: nn.Sequential | None
    blocks: Sequence[Any]
    norm: nn.Module | None

    def roots(self) -> list[nn.Module]:
        """The modules that contain all others of the stage."""
        modules = self.entrance, self.norm, self.blocks
        roots = [m for m in modules if isinstance(m, nn.Module)]
        return roots if isinstance(self.blocks, nn.Module) else [*roots, *self.blocks]


def spec_of(modules: StageModules, x: Tensor) -> StageSpec | None:
    """The spec of a stage's modules; None if no kernel takes the input ``x``."""
    entrance, blocks, norm = modules
    if x.dim() != 4 or not x.numel():
        return None
    first = blocks[0]
    name, before = NONE, x.shape[1]
    if entrance is not None:
        stem = isinstance(entrance[0], nn.Conv2d)
        name = STEM if stem else DOWNSAMPLE
        convolution: Any = entrance[0 if stem else 1]
        if before != convolution.in_channels or (
            stem and (before > _STEM_CHANNELS or x.requires_grad)
        ):
            return None
    elif before != first.dwconv.in_channels:
        return None
    return StageSpec(
        name,
        before,
        first.dwconv.in_channels,
        len(blocks),
        first.gamma is not None,
        first.grn is not None,
        norm is not None,
        first.norm.eps,
    )


def types_of(spec: StageSpec, parameters: Sequence[Tensor], x: Tensor) -> Types | None:
    """The number types of a stage; None if no kernel computes in them."""
    dtype = parameters[0].dtype
    device = x.device.type
    if any(
        p.dtype != dtype
        or p.device != x.device
        or type(p) not in _TENSORS
        or not (p.is_contiguous() or _is_channels_last(p))
        for p in parameters
    ):
        return None
    if not _under_autocast(x):
        if dtype not in _FLOATS or x.dtype != dtype:
            return None
        if torch.compiler.is_compiling():  # the operator asks for the precision later
            return Types(dtype, dtype, dtype)
        return Types(dtype, dtype, dtype, precision_of(dtype))
    work = torch.get_autocast_dtype(device)
    if work not in _FLOATS[1:] or dtype not in _FLOATS or x.dtype not in _FLOATS:
        return None
    stream = torch.float32
    if spec.entrance == NONE:  # a block alone: as ``Block.reference``
        stream = x.dtype
        if spec.layer_scale:
            stream = torch.promote_types(stream, dtype)
    if stream not in (work, torch.float32):
        return None
    return Types(work, stream, dtype)


def describe(
    modules: StageModules, parameters: Sequence[Tensor], x: Tensor
) -> tuple[StageSpec, Types] | None:
    """The spec and number types of a stage; None if no kernel takes the input ``x``."""
    spec = spec_of(modules, x)
    types = None if spec is None else types_of(spec, parameters, x)
    return None if spec is None or types is None else (spec, types)


_TENSORS = Tensor, nn.Parameter


def _under_autocast(x: Tensor) -> bool:
    """Whether autocast is enabled on the device of ``x``."""
    return torch.is_autocast_enabled(x.device.type)


def parameters_of(modules: StageModules) -> Iterator[Tensor]:
    """The stage's parameters in the order of ``StageSpec``."""
    for _, name, module in slots_of(modules):
        yield getattr(module, name)


def slots_of(modules: StageModules) -> Iterator[tuple[dict, str, nn.Module]]:
    """Where each parameter is stored, in the order of ``StageSpec``.

    Yields ``(module._parameters, name, module)`` for each.
    """
    entrance, blocks, norm = modules
    pair = "weight", "bias"
    for module in entrance or ():
        yield from ((module._parameters, name, module) for name in pair)
    for block in blocks:
        for module in (block.dwconv, block.norm, block.pwconv1, block.pwconv2):
            yield from ((module._parameters, name, module) for name in pair)
        if block.gamma is not None:
            yield block._parameters, "gamma", block
        if block.grn is not None:
            for name in ("gamma", "beta"):
                yield block.grn._parameters, name, block.grn
    if norm is not None:
        yield from ((norm._parameters, name, norm) for name in pair)


def rate_of(drop_path: Any) -> float:
    """The rate of a ``DropPath``; 0 in evaluation mode."""
    return drop_path.p if drop_path.training else 0.0


def normed_type(spec: StageSpec, types: Types, x: Tensor) -> torch.dtype | None:
    """The type of the normed map, which is that of PyTorch's LayerNorm."""
    if not spec.norm:
        return None
    return torch.float32 if _under_autocast(x) else types.stream


def mode_of(x: Tensor) -> torch.dtype | bool:
    """The PyTorch setting that decides the types: autocast's dtype, else whether TF32
    is allowed."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return _allows_tf32()


def precision_of(dtype: torch.dtype) -> str:
    """The precision of the stem's products, "tf32" or "ieee", as PyTorch's convolutions
    have it."""
    return "tf32" if dtype == torch.float32 and _allows_tf32() else "ieee"


def _allows_tf32() -> bool:
    """Whether PyTorch's own convolutions may use TF32.

    PyTorch has an old and a new setting, and refuses to read the old one once the new
    one was set.
    """
    convolution = getattr(torch.backends.cudnn, "conv", None)
    precision = getattr(convolution, "fp32_precision", None)
    if precision is None:  # before PyTorch 2.9
        return torch.backends.cudnn.allow_tf32
    return precision == "tf32"


def _is_channels_last(parameter: Tensor) -> bool:
    """Whether a parameter is a convolution's weight in channels_last."""
    return parameter.dim() == 4 and parameter.is_contiguous(
        memory_format=torch.channels_last
    )


def is_standard(modules: StageModules) -> bool:
    """Whether all modules of a stage are as ``ConvNeXt`` builds them: types, settings
    and structure, without hooks and dilation."""
    entrance, blocks, norm = modules
    if isinstance(blocks, nn.Module) and type(blocks) is not nn.Sequential:
        return False
    if not len(blocks) or any(
        getattr(torch_module, f"_global{name}") for name in HOOKS
    ):
        return False
    ends: list[Any] = [*(entrance or ()), *([norm] if norm is not None else [])]
    if any(
        type(m) not in (PatchConv2d, LayerNorm2d) or m.bias is None or _has_hooks(m)
        for m in ends
    ):
        return False
    eps: set[float] = {m.eps for m in ends if isinstance(m, LayerNorm2d)}
    eps |= {b.norm.eps for b in blocks if _has_kernels(b)}
    if len(eps) > 1 or any(
        (m.stride, m.padding, m.dilation) != (m.kernel_size, (0, 0), (1, 1))
        for m in ends
        if isinstance(m, PatchConv2d)
    ):
        return False
    containers = [m for m in (entrance, blocks) if isinstance(m, nn.Module)]
    if any(type(m) is not nn.Sequential or _has_hooks(m) for m in containers):
        return False
    first = blocks[0]
    return all(
        _has_kernels(block)
        and not _has_hooks(block)
        and block.is_as_built()
        and block.dwconv.dilation == (1, 1)  # of a stage in its usual stride
        and (block.gamma is None) == (first.gamma is None)
        and (block.grn is None) == (first.grn is None)
        for block in blocks
    )


def _has_kernels(block: Any) -> bool:
    """Whether the module's class is ``Block`` itself, not a subclass."""
    return "has_kernels" in vars(type(block))


def _has_hooks(module: nn.Module) -> bool:
    """Whether any hook is registered on the module."""
    return any(getattr(module, name) for name in HOOKS)
