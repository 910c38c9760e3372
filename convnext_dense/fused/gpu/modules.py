"""From a stage's modules to its kernels: whether they may stand for the modules, in
which types, and with which parameters."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ..patch_conv import PatchConv2d
from . import compile_op, proof, ways
from .autograd import Given, apply_stage
from .compiled import compile_all
from .description import DOWNSAMPLE, NONE, STEM, Shape, StageKind, Types
from .device import INTERPRETED
from .graphs import graphs_of
from .nvrtc import Unavailable
from .program import Program
from .stage import Stage, stage_of

_FLOATS = torch.float32, torch.bfloat16, torch.float16
_ALIGNMENT = 16  # bytes, of which kernels read so many at a time
_MOST_DECISIONS = 256
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


def run_stage(
    modules: StageModules, x: Tensor, graphed: nn.Module | None = None
) -> tuple[Tensor, Tensor | None] | None:
    """A stage by its kernels.

    Args:
        modules: the stage's; the blocks are ``block.Block``s.
        x: the image or the map before, (N, C, H, W), on a GPU.
        graphed: the backbone, if its stages are to be replayed as CUDA graphs.

    Returns:
        the residual stream and the normed map, or None for the latter. None for both
        where the modules themselves have to be called: parts that were exchanged
        (adapters, quantization), wrapped (FSDP) or have hooks; numbers that no kernel
        takes; a device on which plain PyTorch is the quicker way.
    """
    if torch.compiler.is_compiling():
        return _run_compiled(modules, x)
    known = _known_of(modules)
    if known is None:
        return None
    parameters = known.parameters()
    addresses = [p.data_ptr() for p in parameters]
    decision = known.decide(x, parameters, addresses)
    if decision is None:
        return None
    stage, shape = decision
    if stage.kind.entrance != STEM:
        x = x.to(stage.types.stream).contiguous(memory_format=torch.channels_last)
    if x.data_ptr() % _ALIGNMENT:
        x = x.clone(memory_format=torch.preserve_format)
    drop = draw(known.rates(), len(x), x.device) if shape.drop else None
    given = Given(parameters, addresses, drop)
    if graphed is not None:
        replayed = graphs_of(graphed).run(stage, shape, x, given)
        if replayed is not None:
            return replayed
    return apply_stage(stage, shape, x, given)


def prepare(
    backbone: nn.Module, stages: Callable[[], list[StageModules]], x: Tensor
) -> None:
    """Compile what a backbone's stages need, all side by side, before the first one
    runs.

    Args:
        backbone: whose they are; for the next images like ``x`` there is nothing to do.
        stages: gives them, in order.
        x: an image, on a GPU.
    """
    setting = x.device, x.dtype, torch.is_grad_enabled(), _mode(x), ways.forced()
    prepared = _prepared.setdefault(backbone, set())
    if setting in prepared or torch.cuda.is_current_stream_capturing():
        return
    prepared.add(setting)
    programs: list[Program] = []
    for modules in stages():
        if not modules.blocks or not _is_standard(modules):
            return
        kind = _kind(modules, x)
        parameters = list(_parameters(modules))
        types = None if kind is None else _types(kind, parameters, x)
        plan = types and ways.first_plan(kind, types.work, x.device.index)
        if plan is None:
            return
        strides = _strides(kind, parameters)
        stage = stage_of(kind, types, plan, strides, x.device.index)
        drops = any(_rate(block.drop_path) for block in modules.blocks)
        shape = stage.shape_of(x, drops, _normed(kind, types, x))
        programs += proof.programs(stage, shape, kind.entrance != STEM)
        size = len(x), kind.channels, *kind.out_size(*x.shape[2:])
        x = x.new_empty(1).expand(size).to(types.stream)
    with ways.first_use(x.device.index), contextlib.suppress(Unavailable):
        compile_all(programs, x.device.index)


_prepared: WeakKeyDictionary[nn.Module, set] = WeakKeyDictionary()


def _run_compiled(modules: StageModules, x: Tensor):
    """As ``run_stage``, where torch.compile looks: the operator decides when it is
    run."""
    if not _is_standard(modules):
        return None
    kind = _kind(modules, x)
    parameters = list(_parameters(modules))
    types = None if kind is None else _types(kind, parameters, x)
    if types is None:
        return None
    rates = tuple(_rate(block.drop_path) for block in modules.blocks)
    drop = draw(rates, len(x), x.device) if any(rates) else None
    if kind.entrance != STEM:
        x = x.to(types.stream).contiguous(memory_format=torch.channels_last)
    normed = _normed(kind, types, x)
    return compile_op.apply_stage(kind, types, x, parameters, drop, normed)


def stage_for(
    kind: StageKind,
    types: Types,
    x: Tensor,
    parameters: Sequence[Tensor],
    drops: bool,
    normed: torch.dtype | None,
) -> Stage | None:
    """The ``Stage`` by the way that is best for an input; None for plain PyTorch."""
    if any(t.data_ptr() % _ALIGNMENT for t in parameters):
        return None
    strides = _strides(kind, parameters)
    h, w = kind.out_size(*x.shape[2:])
    use = ways.Use(len(x) * h * w, w, drops, normed, torch.is_grad_enabled())
    device = x.device.index if x.is_cuda else None
    choice = ways.choose(kind, types, strides, device, use)
    if choice.plan is None:
        return None
    return stage_of(kind, types, choice.plan, strides, device)


def _strides(kind: StageKind, parameters: Sequence[Tensor]) -> tuple[int, ...]:
    """Of the entrance's convolution weight."""
    if kind.entrance == NONE:
        return ()
    return parameters[0 if kind.entrance == STEM else 2].stride()


def draw(rates: tuple[float, ...], images: int, device: torch.device) -> Tensor:
    """Drop path's factors, (blocks, N): 0 with each block's rate, else 1 / (1 -
    rate)."""
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
    for _, name, module in _slots(modules):
        yield getattr(module, name)


def _slots(modules: StageModules) -> Iterator[tuple[dict, str, nn.Module]]:
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


def _rate(drop_path: nn.Module) -> float:
    return drop_path.p if drop_path.training else 0.0


def _normed(kind: StageKind, types: Types, x: Tensor) -> torch.dtype | None:
    """The type of the normed map, as PyTorch's LayerNorm has it."""
    if not kind.norm:
        return None
    return torch.float32 if _under_autocast(x) else types.stream


def _mode(x: Tensor):
    """What of PyTorch's settings decides the types."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return torch.backends.cudnn.allow_tf32


class _Known:
    """What is known of a stage's modules, so that a call need not ask again.

    Whether they still are as they were takes a few hundred comparisons, of which Python
    makes ten million a second; what was decided holds for the same parameters and an
    input of the same kind.
    """

    def __init__(self, modules: StageModules):
        roots = modules.roots()
        self.key = tuple(map(id, roots))
        self.standard = _is_standard(modules)
        self._modules = [m for root in roots for m in root.modules()]
        self._types = [type(m) for m in self._modules]
        self._children = [(m._modules, dict(m._modules)) for m in self._modules]
        self._hooks = [getattr(m, name) for m in self._modules for name in _HOOKS]
        self._hooks += [getattr(torch_module, f"_global{name}") for name in _HOOKS]
        if self.standard:
            self._stage_modules = modules
            self._slots = list(_slots(modules))
            self._drop_paths = [block.drop_path for block in modules.blocks]
            self._addresses: list[int] = []
            self._decisions: dict[tuple, tuple | None] = {}

    def is_unchanged(self) -> bool:
        return (
            not any(self._hooks)
            and [*map(type, self._modules)] == self._types
            and all(now == then for now, then in self._children)
        )

    def parameters(self) -> list[Tensor]:
        """The stage's parameters in the order of ``StageKind``."""
        try:
            return [own[name] for own, name, _ in self._slots]
        except KeyError:  # FSDP has plain tensors in their place
            return [getattr(module, name) for _, name, module in self._slots]

    def rates(self) -> tuple[float, ...]:
        """Each block's drop path rate, 0 in evaluation."""
        return tuple(map(_rate, self._drop_paths))

    def decide(
        self, x: Tensor, parameters: list[Tensor], addresses: list[int]
    ) -> tuple[Stage, Shape] | None:
        """The stage and the shape for an input; None where the modules have to be
        called."""
        if addresses != self._addresses:
            self._addresses = addresses
            self._decisions.clear()
        drops = any(self.rates())
        setting = (
            *(x.shape, x.dtype, x.stride(), x.requires_grad, drops),
            *(torch.is_grad_enabled(), ways.forced(), _mode(x)),
        )
        if setting not in self._decisions:
            decision, settled = self._decide(x, parameters, drops)
            if not settled:
                return decision
            if len(self._decisions) >= _MOST_DECISIONS:
                self._decisions.clear()
            self._decisions[setting] = decision
        return self._decisions[setting]

    def _decide(self, x, parameters, drops):
        """The decision, and whether it holds for the next such input too."""
        kind = _kind(self._stage_modules, x)
        types = None if kind is None else _types(kind, parameters, x)
        if types is None:
            return None, True
        normed = _normed(kind, types, x)
        stage = stage_for(kind, types, x, parameters, drops, normed)
        if stage is None:
            # not while a CUDA graph is recorded, when nothing can be tried
            return None, not (x.is_cuda and torch.cuda.is_current_stream_capturing())
        return (stage, stage.shape_of(x, drops, normed)), True


_known: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def _known_of(modules: StageModules) -> _Known | None:
    """What is known of the modules; None where they have to be called."""
    first = modules.blocks[0] if len(modules.blocks) else None
    known = _known.get(first)
    key = tuple(map(id, modules.roots()))
    if known is None or known.key != key or not known.is_unchanged():
        if first is None:
            return None
        known = _known[first] = _Known(modules)
    return known if known.standard else None


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
