"""What a stage's modules are: their kind, types and parameters, and whether kernels may
stand for them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ...layer_norm import LayerNorm2d
from ..patch_conv import PatchConv2d
from .description import DOWNSAMPLE, NONE, STEM, StageKind, Types

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_FLOATS = torch.float32, torch.bfloat16, torch.float16
_STEM_CHANNELS = 4  # of an image, at most, that the stem's kernels take


class StageModules(NamedTuple):
    """A stage: the stem or the downsample layer before it, if there is one; its blocks;
    the norm of its output map, or None. The blocks are in a Sequential, or alone in a
    tuple."""

    entrance: nn.Sequential | None
    blocks: Sequence[nn.Module]
    norm: nn.Module | None

    def roots(self) -> list[nn.Module]:
        parts = self.entrance, self.norm, self.blocks
        own = [m for m in parts if isinstance(m, nn.Module)]
        return own if isinstance(self.blocks, nn.Module) else [*own, *self.blocks]


def kind_of(modules: StageModules, x: Tensor) -> StageKind | None:
    """What the modules are; None for an input that no kernel takes."""
    entrance, blocks, norm = modules
    if x.dim() != 4 or not x.numel():
        return None
    first = blocks[0]
    name, before = NONE, x.shape[1]
    if entrance is not None:
        stem = isinstance(entrance[0], nn.Conv2d)
        name = STEM if stem else DOWNSAMPLE
        if before != entrance[0 if stem else 1].in_channels or (
            stem and (before > _STEM_CHANNELS or x.requires_grad)
        ):
            return None
    elif before != first.dwconv.in_channels:
        return None
    return StageKind(
        name,
        before,
        first.dwconv.in_channels,
        len(blocks),
        first.gamma is not None,
        first.grn is not None,
        norm is not None,
        first.norm.eps,
    )


def types_of(kind: StageKind, parameters: Sequence[Tensor], x: Tensor) -> Types | None:
    """What is computed in which type; None if no kernel does that."""
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
        if torch.compiler.is_compiling():  # which cannot ask; its operator does
            return Types(dtype, dtype, dtype)
        return Types(dtype, dtype, dtype, precision_of(dtype))
    work = torch.get_autocast_dtype(device)
    if work not in _FLOATS[1:] or dtype not in _FLOATS or x.dtype not in _FLOATS:
        return None
    stream = torch.float32
    if kind.entrance == NONE:  # a block alone: as ``Block.reference``
        stream = x.dtype
        if kind.layer_scale:
            stream = torch.promote_types(stream, dtype)
    if stream not in (work, torch.float32):
        return None
    return Types(work, stream, dtype)


_TENSORS = Tensor, nn.Parameter


def _under_autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def parameters_of(modules: StageModules) -> Iterator[Tensor]:
    """The stage's parameters in the order of ``StageKind``."""
    for _, name, module in slots_of(modules):
        yield getattr(module, name)


def slots_of(modules: StageModules) -> Iterator[tuple[dict, str, nn.Module]]:
    """Where each parameter is: the module's dict of them, the name, the module."""
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


def rate_of(drop_path: nn.Module) -> float:
    return drop_path.p if drop_path.training else 0.0


def normed_type(kind: StageKind, types: Types, x: Tensor) -> torch.dtype | None:
    """The type of the normed map, as PyTorch's LayerNorm has it."""
    if not kind.norm:
        return None
    return torch.float32 if _under_autocast(x) else types.stream


def mode_of(x: Tensor):
    """What of PyTorch's settings decides the types."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return _allows_tf32()


def precision_of(dtype: torch.dtype) -> str:
    """Of products in the stem, as PyTorch's own convolutions: "tf32" or "ieee"."""
    return "tf32" if dtype == torch.float32 and _allows_tf32() else "ieee"


def _allows_tf32() -> bool:
    """Whether PyTorch's own convolutions may use TF32. One of its two settings cannot
    be read once the other was used."""
    convolution = getattr(torch.backends.cudnn, "conv", None)
    precision = getattr(convolution, "fp32_precision", None)
    if precision is None:  # before PyTorch 2.9
        return torch.backends.cudnn.allow_tf32
    return precision == "tf32"


def _is_channels_last(parameter: Tensor) -> bool:
    return parameter.dim() == 4 and parameter.is_contiguous(
        memory_format=torch.channels_last
    )


def is_standard(modules: StageModules) -> bool:
    entrance, blocks, norm = modules
    if isinstance(blocks, nn.Module) and type(blocks) is not nn.Sequential:
        return False
    if not len(blocks) or any(
        getattr(torch_module, f"_global{name}") for name in HOOKS
    ):
        return False
    ends = [*(entrance or ()), *([norm] if norm is not None else [])]
    if any(
        type(m) not in (PatchConv2d, LayerNorm2d) or m.bias is None or _is_heard(m)
        for m in ends
    ):
        return False
    eps = {m.eps for m in ends if isinstance(m, LayerNorm2d)}
    eps |= {b.norm.eps for b in blocks if _has_kernels(b)}
    if len(eps) > 1 or any(
        (m.stride, m.padding, m.dilation) != (m.kernel_size, (0, 0), (1, 1))
        for m in ends
        if isinstance(m, PatchConv2d)
    ):
        return False
    containers = [m for m in (entrance, blocks) if isinstance(m, nn.Module)]
    if any(type(m) is not nn.Sequential or _is_heard(m) for m in containers):
        return False
    first = blocks[0]
    return all(
        _has_kernels(block)
        and not _is_heard(block)
        and block.is_as_built()
        and (block.gamma is None) == (first.gamma is None)
        and (block.grn is None) == (first.grn is None)
        for block in blocks
    )


def _has_kernels(block: nn.Module) -> bool:
    """Whether it is a ``Block`` itself, not of a subclass."""
    return "has_kernels" in vars(type(block))


def _is_heard(module: nn.Module) -> bool:
    return any(getattr(module, name) for name in HOOKS)
