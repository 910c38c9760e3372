"""Entry point of the GPU path: computes a stage with kernels, or declines."""

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
from .graphs import graphs_of
from .modules import (
    HOOKS,
    StageModules,
    describe,
    is_standard,
    mode_of,
    normed_type,
    parameters_of,
    rate_of,
    slots_of,
)
from .nvrtc import Unavailable
from .program import Program
from .stage import Stage, stage_of
from .stage_arguments import StageArguments

_MOST_DECISIONS = 256
_ATTRIBUTE = "_known_to_gpu"


def runs_on(x: Tensor) -> bool:
    """Whether there are kernels for ``x``'s device."""
    if x.is_cuda:
        return True
    # TRITON_INTERPRET alone does not count: it may be set for another library
    return INTERPRETED and x.device.type == "cpu" and ways.forced() is not None


def run_stage(
    modules: StageModules, x: Tensor, graphed: nn.Module | None = None
) -> tuple[Tensor, Tensor | None] | None:
    """Compute a stage with kernels.

    Args:
        modules: the stage's modules.
        x: the image or the map before, (N, C, H, W), on a GPU.
        graphed: the backbone, if its stages are replayed as CUDA graphs.

    Returns:
        The residual stream and the normed map (None without ``modules.norm``), or just
        None if the caller has to call the modules themselves. That is so if modules
        were replaced (adapters, quantization), wrapped (FSDP) or have hooks; if no
        kernel takes the types; or if plain PyTorch is faster on the device.
    """
    if torch.compiler.is_compiling():
        return _run_compiled(modules, x)
    cache = _cache_of(modules)
    if cache is None:
        return None
    parameters = cache.parameters()
    addresses = [p.data_ptr() for p in parameters]
    decision = cache.decide(x, parameters, addresses)
    if decision is None:
        return None
    stage, shape = decision
    if stage.spec.entrance != STEM:
        x = x.to(stage.types.stream).contiguous(memory_format=torch.channels_last)
    if x.data_ptr() % ALIGNMENT:
        x = x.clone(memory_format=torch.preserve_format)
    drop = draw(cache.rates(), len(x), x.device) if shape.drop else None
    arguments = StageArguments(parameters, addresses, drop)
    if graphed is not None:
        graphs = graphs_of(graphed, x.device)
        replayed = graphs.run(stage, shape, x, arguments)
        if replayed is not None:
            return replayed
    return apply_stage(stage, shape, x, arguments)


def prepare(
    backbone: nn.Module, stages: Callable[[], list[StageModules]], x: Tensor
) -> None:
    """Compile the kernels of a backbone's stages in parallel, before the first stage
    runs. Stages after one that no kernel can replace are left out.

    Args:
        backbone: the backbone. A second call for an image like ``x`` does nothing.
        stages: returns the modules of each stage, in order.
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
            break
        parameters = list(parameters_of(modules))
        description = describe(modules, parameters, x)
        if description is None:
            return
        spec, types = description
        plan = ways.first_plan(spec, types.work, x.device.index)
        if plan is None:
            return
        strides = strides_of(spec, parameters)
        stage = stage_of(spec, types, plan, strides, x.device.index)
        drops = any(rate_of(block.drop_path) for block in modules.blocks)
        shape = stage.shape_of(x, drops, normed_type(spec, types, x))
        programs += proof.programs(stage, shape, spec.entrance != STEM)
        size = len(x), spec.channels, *spec.out_size(*x.shape[2:])
        x = x.new_empty(1, dtype=types.stream).expand(size)
    with ways.first_use(x.device.index), contextlib.suppress(Unavailable):
        compile_all(programs, x.device.index)


_prepared: WeakKeyDictionary[nn.Module, set] = WeakKeyDictionary()


def _run_compiled(modules: StageModules, x: Tensor):
    """``run_stage`` for code that torch.compile traces.

    The operator ``convnext_dense::stage`` chooses the way when it runs.
    """
    if not is_standard(modules):
        return None
    parameters = list(parameters_of(modules))
    description = describe(modules, parameters, x)
    if description is None:
        return None
    spec, types = description
    rates = tuple(rate_of(block.drop_path) for block in modules.blocks)
    drop = draw(rates, len(x), x.device) if any(rates) else None
    if spec.entrance != STEM:
        x = x.to(types.stream).contiguous(memory_format=torch.channels_last)
    normed = normed_type(spec, types, x)
    return compile_op.apply_stage(spec, types, x, parameters, drop, normed)


def draw(rates: tuple[float, ...], images: int, device: torch.device) -> Tensor:
    """Random drop path factors, (blocks, N) in fp32.

    A factor is 0 with the probability ``rates[block]``, else 1 / (1 - rate).
    """
    keep = _keep(rates, device)
    return torch.bernoulli(keep.expand(-1, images)).div_(keep.clamp_min(1e-30))


@functools.lru_cache(maxsize=64)
def _keep(rates: tuple[float, ...], device: torch.device) -> Tensor:
    """The probability that a block is kept, (blocks, 1)."""
    return torch.tensor([[1 - rate] for rate in rates], device=device)


class _StageCache:
    """Caches what was read from a stage's modules and the decisions made for them.

    Each call compares the modules with this cache, in a few hundred comparisons. A
    decision holds as long as the parameters keep their addresses, for inputs of the
    same shape and type. The cache is an attribute of the first block and is freed with
    it. Copies and pickles of the block do not have it.
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
        """Whether no module was replaced, no hook registered, no layer scale folded."""
        return (
            not any(self._hooks)
            and [*map(type, self._modules)] == self._types
            and all(now == then for now, then in self._children)
            and (
                not self.standard
                or all(
                    (parameters.get("gamma") is None) == was_folded
                    for parameters, was_folded in self._folded
                )
            )
        )

    def __deepcopy__(self, memo) -> None:
        return None

    def __reduce__(self):
        return type(None), ()

    def parameters(self) -> list[Tensor]:
        """The stage's parameters in the order of ``StageSpec``."""
        try:
            return [parameters[name] for parameters, name, _ in self._slots]
        except KeyError:  # FSDP puts plain tensors in their place
            return [getattr(module, name) for _, name, module in self._slots]

    def rates(self) -> tuple[float, ...]:
        """The drop path rate of each block, 0 in evaluation mode."""
        return tuple(map(rate_of, self._drop_paths))

    def decide(
        self, x: Tensor, parameters: list[Tensor], addresses: list[int]
    ) -> tuple[Stage, Shape] | None:
        """The ``Stage`` and ``Shape`` for an input; None if the modules have to be
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
        """The decision, and whether it may be cached for the next such input."""
        description = describe(self._stage_modules, parameters, x)
        if description is None:
            return None, True
        spec, types = description
        normed = normed_type(spec, types, x)
        stage = stage_for(spec, types, x, parameters, drops, normed)
        if stage is None:
            # While a CUDA graph is recorded no kernel can be tried: ask again later.
            return None, not (x.is_cuda and torch.cuda.is_current_stream_capturing())
        return (stage, stage.shape_of(x, drops, normed)), True


def _cache_of(modules: StageModules) -> _StageCache | None:
    """The cache of a stage's modules; None if the modules have to be called."""
    blocks = modules.blocks
    if isinstance(blocks, nn.Module) and type(blocks) is not nn.Sequential:
        return None
    if not len(blocks):
        return None
    attributes = blocks[0].__dict__
    cache = attributes.get(_ATTRIBUTE)
    key = tuple(map(id, modules.roots()))
    if cache is None or cache.key != key or not cache.is_unchanged():
        cache = attributes[_ATTRIBUTE] = _StageCache(modules)
    return cache if cache.standard else None
