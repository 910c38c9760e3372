"""Runs a stage by its kernels, where these may and should stand for its modules."""

import contextlib
import functools
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from . import compile_op, proof, ways
from .autograd import apply_stage
from .best_stage import ALIGNMENT, stage_for, strides_of
from .compiled import compile_all
from .description import STEM, Shape
from .device import INTERPRETED
from .given import Given
from .graphs import graphs_of
from .modules import (
    HOOKS,
    StageModules,
    is_standard,
    kind_of,
    mode_of,
    normed_type,
    parameters_of,
    rate_of,
    slots_of,
    types_of,
)
from .nvrtc import Unavailable
from .program import Program
from .stage import Stage, stage_of

_MOST_DECISIONS = 256
_ATTRIBUTE = "_known_to_gpu"


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
        the residual stream and the normed map (None without ``modules.norm``). Just
        None where the modules themselves have to be called: parts that were exchanged
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
    if x.data_ptr() % ALIGNMENT:
        x = x.clone(memory_format=torch.preserve_format)
    drop = draw(known.rates(), len(x), x.device) if shape.drop else None
    given = Given(parameters, addresses, drop)
    if graphed is not None:
        graphs = graphs_of(graphed, x.device)
        replayed = graphs.run(stage, shape, x, given)
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
    setting = x.device, x.dtype, torch.is_grad_enabled(), mode_of(x), ways.forced()
    prepared = _prepared.setdefault(backbone, set())
    if setting in prepared or torch.cuda.is_current_stream_capturing():
        return
    prepared.add(setting)
    programs: list[Program] = []
    for modules in stages():
        if not modules.blocks or not is_standard(modules):
            return
        kind = kind_of(modules, x)
        parameters = list(parameters_of(modules))
        types = None if kind is None else types_of(kind, parameters, x)
        plan = types and ways.first_plan(kind, types.work, x.device.index)
        if plan is None:
            return
        strides = strides_of(kind, parameters)
        stage = stage_of(kind, types, plan, strides, x.device.index)
        drops = any(rate_of(block.drop_path) for block in modules.blocks)
        shape = stage.shape_of(x, drops, normed_type(kind, types, x))
        programs += proof.programs(stage, shape, kind.entrance != STEM)
        size = len(x), kind.channels, *kind.out_size(*x.shape[2:])
        x = x.new_empty(1, dtype=types.stream).expand(size)
    with ways.first_use(x.device.index), contextlib.suppress(Unavailable):
        compile_all(programs, x.device.index)


_prepared: WeakKeyDictionary[nn.Module, set] = WeakKeyDictionary()


def _run_compiled(modules: StageModules, x: Tensor):
    """As ``run_stage``, where torch.compile looks: the operator decides when it is
    run."""
    if not is_standard(modules):
        return None
    kind = kind_of(modules, x)
    parameters = list(parameters_of(modules))
    types = None if kind is None else types_of(kind, parameters, x)
    if types is None:
        return None
    rates = tuple(rate_of(block.drop_path) for block in modules.blocks)
    drop = draw(rates, len(x), x.device) if any(rates) else None
    if kind.entrance != STEM:
        x = x.to(types.stream).contiguous(memory_format=torch.channels_last)
    normed = normed_type(kind, types, x)
    return compile_op.apply_stage(kind, types, x, parameters, drop, normed)


def draw(rates: tuple[float, ...], images: int, device: torch.device) -> Tensor:
    """Drop path's factors, (blocks, N): 0 with each block's rate, else 1 / (1 -
    rate)."""
    keep = _keep(rates, device)
    return torch.bernoulli(keep.expand(-1, images)).div_(keep.clamp_min(1e-30))


@functools.lru_cache(maxsize=64)
def _keep(rates: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor([[1 - rate] for rate in rates], device=device)


class _Known:
    """What is known of a stage's modules, so that a call need not ask again.

    A call looks whether they still are as they were, which takes a few hundred
    comparisons. What was decided holds for the same parameters and an input of the same
    kind. It is an attribute of the first block, and goes with it; copies and files of
    the block are without it.
    """

    def __init__(self, modules: StageModules):
        roots = modules.roots()
        self.key = tuple(map(id, roots))
        self.standard = is_standard(modules)
        self._modules = [m for root in roots for m in root.modules()]
        self._types = [type(m) for m in self._modules]
        self._children = [(m._modules, dict(m._modules)) for m in self._modules]
        self._hooks = [getattr(m, name) for m in self._modules for name in HOOKS]
        self._hooks += [getattr(torch_module, f"_global{name}") for name in HOOKS]
        if self.standard:
            self._stage_modules = modules
            self._slots = list(slots_of(modules))
            self._drop_paths = [block.drop_path for block in modules.blocks]
            self._folded = [(b._parameters, b.gamma is None) for b in modules.blocks]
            self._addresses: list[int] = []
            self._decisions: dict[tuple, tuple | None] = {}

    def is_unchanged(self) -> bool:
        return (
            not any(self._hooks)
            and [*map(type, self._modules)] == self._types
            and all(now == then for now, then in self._children)
            and (
                not self.standard
                or all((own.get("gamma") is None) == no for own, no in self._folded)
            )
        )

    def __deepcopy__(self, memo) -> None:
        return None

    def __reduce__(self):
        return type(None), ()

    def parameters(self) -> list[Tensor]:
        """The stage's parameters in the order of ``StageKind``."""
        try:
            return [own[name] for own, name, _ in self._slots]
        except KeyError:  # FSDP has plain tensors in their place
            return [getattr(module, name) for _, name, module in self._slots]

    def rates(self) -> tuple[float, ...]:
        """Each block's drop path rate, 0 in evaluation."""
        return tuple(map(rate_of, self._drop_paths))

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
            *(x.shape, x.dtype, x.device, x.stride(), x.requires_grad, drops),
            *(torch.is_grad_enabled(), ways.forced(), mode_of(x)),
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
        kind = kind_of(self._stage_modules, x)
        types = None if kind is None else types_of(kind, parameters, x)
        if types is None:
            return None, True
        normed = normed_type(kind, types, x)
        stage = stage_for(kind, types, x, parameters, drops, normed)
        if stage is None:
            # not while a CUDA graph is recorded, when nothing can be tried
            return None, not (x.is_cuda and torch.cuda.is_current_stream_capturing())
        return (stage, stage.shape_of(x, drops, normed)), True


def _known_of(modules: StageModules) -> _Known | None:
    """What is known of the modules; None where they have to be called."""
    blocks = modules.blocks
    if isinstance(blocks, nn.Module) and type(blocks) is not nn.Sequential:
        return None
    if not len(blocks):
        return None
    attributes = blocks[0].__dict__
    known = attributes.get(_ATTRIBUTE)
    key = tuple(map(id, modules.roots()))
    if known is None or known.key != key or not known.is_unchanged():
        known = attributes[_ATTRIBUTE] = _Known(modules)
    return known if known.standard else None
