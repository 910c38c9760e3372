"""From a stage's modules to its kernels: whether they may stand for the modules, in which
types, and with which parameters."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ..patch_conv import PatchConv2d
from . import compile_op, ways
from .autograd import apply_stage
from .description import DOWNSAMPLE, NONE, STEM, StageKind, Types
from .device import INTERPRETED
from .stage import stage_of

_FLOATS = torch.float32, torch.bfloat16, torch.float16
_STEM_CHANNELS = 4  # of an image, at most, that the stem's kernels take
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


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


def runs_on(x: Tensor) -> bool:
    """Whether there are kernels for ``x``'s device."""
    if x.is_cuda:
        return True
    # someone may interpret kernels of their own
    return INTERPRETED and x.device.type == "cpu" and ways.forced() is not None


def run_stage(modules: StageModules, x: Tensor) -> tuple[Tensor, Tensor | None] | None:
    """A stage by its kernels.

    Args:
        modules: the stage's; the blocks are ``block.Block``s.
        x: the image or the map before, (N, C, H, W), on a GPU.

    Returns:
        the residual stream and the normed map, or None for the latter. None for both
        where the modules themselves have to be called: parts that were exchanged
        (adapters, quantization), wrapped (FSDP) or have hooks; numbers that no kernel
        takes; a device on which plain PyTorch is the quicker way.
    """
    if not _are_as_built(modules):
        return None
    kind = _kind(modules, x)
    parameters = list(_parameters(modules))
    types = None if kind is None else _types(kind, parameters, x)
    if types is None:
        return None
    normed = None
    if kind.norm:
        normed = torch.float32 if _under_autocast(x) else types.stream
    rates = [b.drop_path.p if b.drop_path.training else 0.0 for b in modules.blocks]
    drop = draw(tuple(rates), len(x), x.device) if any(rates) else None
    if kind.entrance != STEM:
        x = x.to(types.stream).contiguous(memory_format=torch.channels_last)
    if torch.compiler.is_compiling():
        return compile_op.apply_stage(kind, types, x, parameters, drop, normed)
    stage = stage_for(kind, types, x, parameters, drop, normed)
    return stage and apply_stage(stage, x, parameters, drop, normed)


def stage_for(kind, types, x, parameters, drop, normed):
    """The ``Stage`` by the way that is best for an input; None for plain PyTorch."""
    # kernels read 16 bytes at a time
    if any(t.data_ptr() % 16 for t in (x, *parameters)):
        return None
    strides: tuple[int, ...] = ()
    if kind.entrance != NONE:
        strides = parameters[0 if kind.entrance == STEM else 2].stride()
    h, w = kind.out_size(*x.shape[2:])
    train = torch.is_grad_enabled()
    use = ways.Use(len(x) * h * w, w, drop is not None, normed, train)
    device = x.device.index if x.is_cuda else None
    choice = ways.choose(kind, types, strides, device, use)
    if choice.plan is None:
        return None
    return stage_of(kind, types, choice.plan, strides, device)


def draw(rates: tuple[float, ...], images: int, device: torch.device) -> Tensor:
    """Drop path's factors, (blocks, N): 0 with each block's rate, else 1 / (1 - rate)."""
    keep = _keep(rates, device)
    return torch.bernoulli(keep.expand(-1, images)).div_(keep)


@functools.lru_cache(maxsize=64)
def _keep(rates: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor([[1 - rate] for rate in rates], device=device)


def _kind(modules: StageModules, x: Tensor) -> StageKind | None:
    """What the modules are; None for an input that no kernel takes."""
    entrance, blocks, norm = modules
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


def _types(kind: StageKind, parameters: Sequence[Tensor], x: Tensor) -> Types | None:
    """What is computed in which type; None if no kernel does that."""
    dtype = parameters[0].dtype
    device = x.device.type
    if any(
        p.dtype != dtype or p.device != x.device or type(p) not in _TENSORS
        for p in parameters
    ):
        return None
    if not _under_autocast(x):
        if dtype not in _FLOATS or x.dtype != dtype:
            return None
        precision = "ieee"
        if dtype == torch.float32 and torch.backends.cudnn.allow_tf32:
            precision = "tf32"  # as PyTorch's own convolutions
        return Types(dtype, dtype, dtype, precision)
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


def _parameters(modules: StageModules) -> Iterator[Tensor]:
    """The stage's parameters in the order of ``StageKind``."""
    entrance, blocks, norm = modules
    for module in entrance or ():
        yield from (_get(module, "weight"), _get(module, "bias"))
    for block in blocks:
        for module in (block.dwconv, block.norm, block.pwconv1, block.pwconv2):
            yield from (_get(module, "weight"), _get(module, "bias"))
        if block.gamma is not None:
            yield _get(block, "gamma")
        if block.grn is not None:
            yield from (_get(block.grn, "gamma"), _get(block.grn, "beta"))
    if norm is not None:
        yield from (_get(norm, "weight"), _get(norm, "bias"))


def _get(module: nn.Module, name: str) -> Tensor:
    """A parameter, without the detours of attribute access where it is one. (FSDP puts
    plain tensors in their place.)"""
    parameter = module._parameters.get(name)
    return getattr(module, name) if parameter is None else parameter


class _Anatomy:
    """A stage's modules as they were, to see at once whether they still are: a few
    hundred comparisons, of which Python makes ten million a second."""

    def __init__(self, modules: StageModules):
        self._modules = [m for root in modules.roots() for m in root.modules()]
        self._types = [type(m) for m in self._modules]
        self._children = [(m._modules, dict(m._modules)) for m in self._modules]
        self._hooks = [getattr(m, name) for m in self._modules for name in _HOOKS]
        self._hooks += [getattr(torch_module, f"_global{name}") for name in _HOOKS]
        self.valid = _is_standard(modules)

    def is_unchanged(self) -> bool:
        return (
            not any(self._hooks)
            and [*map(type, self._modules)] == self._types
            and all(now == then for now, then in self._children)
        )


_known: WeakKeyDictionary[nn.Module, tuple[tuple, _Anatomy]] = WeakKeyDictionary()


def _are_as_built(modules: StageModules) -> bool:
    """Whether every part is what ``ConvNeXt`` made and nobody listens to it."""
    if torch.compiler.is_compiling():
        return _is_standard(modules)
    first = modules.blocks[0]
    key = tuple(map(id, modules.roots()))
    known = _known.get(first)
    if known is None or known[0] != key or not known[1].is_unchanged():
        known = _known[first] = key, _Anatomy(modules)
        return known[1].valid
    return known[1].valid


def _is_standard(modules: StageModules) -> bool:
    from ...block import Block, LayerNorm2d  # which imports this package

    entrance, blocks, norm = modules
    if any(getattr(torch_module, f"_global{name}") for name in _HOOKS):
        return False
    ends = [*(entrance or ()), *([norm] if norm is not None else [])]
    if any(
        type(m) not in (PatchConv2d, LayerNorm2d) or m.bias is None or _is_heard(m)
        for m in ends
    ):
        return False
    containers = [m for m in (entrance, blocks) if isinstance(m, nn.Module)]
    if any(type(m) is not nn.Sequential or _is_heard(m) for m in containers):
        return False
    first = blocks[0]
    return all(
        type(block) is Block
        and not _is_heard(block)
        and block.is_as_built()
        and (block.gamma is None) == (first.gamma is None)
        and (block.grn is None) == (first.grn is None)
        for block in blocks
    )


def _is_heard(module: nn.Module) -> bool:
    return any(getattr(module, name) for name in _HOOKS)
