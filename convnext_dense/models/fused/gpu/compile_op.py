"""A stage as an operator for ``torch.compile``, which would otherwise look into it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from . import autograd, reference
from .best_stage import stage_for
from .description import DOWNSAMPLE, STEM, StageKind, Types
from .given import Given
from .modules import precision_of
from .places import kept_bytes
from .stage import as_map


def apply_stage(
    kind: StageKind,
    types: Types,
    x: Tensor,
    parameters: Sequence[Tensor],
    drop: Tensor | None,
    normed: torch.dtype | None,
) -> tuple[Tensor, Tensor | None]:
    """As ``autograd.apply_stage``, of whichever way is best when it is run."""
    train = torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in parameters)
    )
    described = *kind, *types[:-1]
    out, map_, _ = _stage(x, list(parameters), drop, *described, normed, train)
    return out, None if normed is None else map_


@torch.library.custom_op("convnext_dense::stage", mutates_args=())
def _stage(
    x: Tensor,
    parameters: list[Tensor],
    drop: Tensor | None,
    entrance: str,
    before: int,
    channels: int,
    blocks: int,
    layer_scale: bool,
    grn: bool,
    norm: bool,
    eps: float,
    work: torch.dtype,
    stream: torch.dtype,
    parameter_type: torch.dtype,
    normed: torch.dtype | None,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The stream, the normed map and what is kept for the backward pass; the last two
    are empty where there is none."""
    kind = StageKind(entrance, before, channels, blocks, layer_scale, grn, norm, eps)
    types = Types(work, stream, parameter_type, precision_of(work))
    x = _as_read(kind, x)
    stage = _stage_for(kind, types, x, parameters, drop, normed, train)
    if stage is not None:
        shape = stage.shape_of(x, drop is not None, normed)
        given = Given.of(parameters, drop)
        out, map_, kept = stage.forward(x, given, shape, train)
    else:
        out, map_ = _plain(kind, types, x, parameters, drop, normed)
        kept = x.new_empty(_kept_bytes(kind, types, x, train), dtype=torch.uint8)
    return out, *(_empty(x) if t is None else t for t in (map_, kept))


@_stage.register_fake
def _(x, parameters, drop, *arguments):
    *described, normed, train = arguments
    kind, types = _described(described)
    maps = [_map_like(kind, x, types.stream)]
    maps.append(_empty(x) if normed is None else _map_like(kind, x, normed))
    count = _kept_bytes(kind, types, x, train)
    return *maps, x.new_empty(count, dtype=torch.uint8)


@torch.library.custom_op("convnext_dense::stage_backward", mutates_args=())
def _stage_backward(
    g: Tensor | None,
    g_normed: Tensor | None,
    wanted: list[bool],
    x: Tensor,
    out: Tensor,
    kept: Tensor,
    parameters: list[Tensor],
    drop: Tensor | None,
    entrance: str,
    before: int,
    channels: int,
    blocks: int,
    layer_scale: bool,
    grn: bool,
    norm: bool,
    eps: float,
    work: torch.dtype,
    stream: torch.dtype,
    parameter_type: torch.dtype,
    normed: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    """The gradient of x, empty if not wanted, and those of all parameters in one."""
    kind = StageKind(entrance, before, channels, blocks, layer_scale, grn, norm, eps)
    types = Types(work, stream, parameter_type, precision_of(work))
    x = _as_read(kind, x)
    stage = _stage_for(kind, types, x, parameters, drop, normed, True)
    if stage is not None:
        shape = stage.shape_of(x, drop is not None, normed)
        given = Given.of(parameters, drop)
        x, out = autograd.laid_out(x, shape), as_map(out, stream)
        dx, grads = stage.backward(
            x, out, kept, given, shape, tuple(wanted), g, g_normed
        )
    else:
        arguments = parameters, drop, normed, wanted, g, g_normed
        dx, grads = _with_autograd(
            lambda: _plain_backward(kind, types, x, *arguments), x
        )
    return _empty(x) if dx is None else dx, grads


@_stage_backward.register_fake
def _(g, g_normed, wanted, x, out, kept, parameters, *rest):
    dx = _empty(x)
    if wanted[0]:
        dx = torch.empty_like(x, memory_format=torch.channels_last)
    count = sum(p.numel() for p in parameters)
    return dx, x.new_empty(count, dtype=torch.float32)


def _setup_context(ctx, inputs, output):
    x, parameters, drop, *described, normed, _ = inputs
    ctx.save_for_backward(x, drop, output[0], output[2], *parameters)
    ctx.described, ctx.normed = described, normed
    ctx.set_materialize_grads(False)


def _gradient(ctx, g, g_normed, _):
    x, drop, out, kept, *parameters = ctx.saved_tensors
    kind, types = _described(ctx.described)
    of_x, of_parameters = ctx.needs_input_grad[:2]
    if not isinstance(of_parameters, list | tuple):
        of_parameters = [p.requires_grad for p in parameters]
    wanted = [of_x, *of_parameters]
    if ctx.normed is None:
        g_normed = None
    if g is None and g_normed is None:
        nothing = [None] * len(parameters)
        return None, nothing, *(None,) * (len(ctx.described) + 3)
    dx, grads = _stage_backward(
        g, g_normed, wanted, x, out, kept, parameters, drop, *ctx.described, ctx.normed
    )
    views = autograd.gradients(kind, types, grads, parameters, wanted[1:])
    return dx if of_x else None, views, *(None,) * (len(ctx.described) + 3)


_stage.register_autograd(_gradient, setup_context=_setup_context)


def _described(arguments: Sequence) -> tuple[StageKind, Types]:
    count = len(StageKind._fields)
    return StageKind(*arguments[:count]), Types(*arguments[count:])


def _stage_for(kind, types, x, parameters, drop, normed, train):
    def find():
        with torch.set_grad_enabled(train):
            return stage_for(kind, types, x, parameters, drop is not None, normed)

    asked = kind, types, x.shape, x.device, drop is None, normed, train
    if asked in _asked:
        return find()
    stage = _with_autograd(find, x)  # kernels prove themselves, also back
    _asked.add(asked)
    return stage


_asked: set[tuple] = set()


def _with_autograd(call: Callable, x: Tensor):
    """What ``call`` returns. An operator's own code runs below autograd, where nothing
    goes back; another thread does not."""
    stream = torch.cuda.current_stream(x.device) if x.is_cuda else None

    def run():
        with torch.cuda.stream(stream):
            return call()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def _as_read(kind: StageKind, x: Tensor) -> Tensor:
    """In the layout that the kernels read, which a compiler does not promise."""
    if kind.entrance != STEM:
        x = x.contiguous(memory_format=torch.channels_last)
    # kernels read 16 bytes at a time
    return x.clone(memory_format=torch.preserve_format) if x.data_ptr() % 16 else x


def _kept_bytes(kind: StageKind, types: Types, x: Tensor, train: bool) -> int:
    if not train:
        return 0
    h, w = kind.out_size(*x.shape[2:])
    return kept_bytes(kind, types, len(x) * h * w)


def _map_like(kind: StageKind, x: Tensor, dtype: torch.dtype) -> Tensor:
    h, w = kind.out_size(*x.shape[2:])
    size = len(x), kind.channels, h, w
    return x.new_empty(size, dtype=dtype).to(memory_format=torch.channels_last)


def _empty(x: Tensor) -> Tensor:
    return x.new_empty(0, dtype=torch.uint8)


def _plain(kind, types, x, parameters, drop, normed):
    mixed = types.work != types.parameters or types.split
    with torch.autocast(x.device.type, types.work, enabled=mixed):
        out, map_ = reference.run(kind, x, parameters, drop)
    cl = torch.channels_last
    out = out.to(types.stream).contiguous(memory_format=cl)
    if map_ is not None:
        map_ = map_.to(normed).contiguous(memory_format=cl)
    return out, map_


def _plain_backward(kind, types, x, parameters, drop, normed, wanted, g, g_normed):
    with torch.enable_grad():
        leaves = [
            t.detach().requires_grad_(want)
            for t, want in zip((x, *parameters), wanted, strict=True)
        ]
        outs = _plain(kind, types, leaves[0], leaves[1:], drop, normed)
        pairs = [
            (out, grad)
            for out, grad in zip(outs, (g, g_normed), strict=True)
            if grad is not None
        ]
        needed = [leaf for leaf in leaves if leaf.requires_grad]
        outs, incoming = zip(*pairs, strict=True)
        made = iter(torch.autograd.grad(outs, needed, incoming, allow_unused=True))
    grads = [next(made) if leaf.requires_grad else None for leaf in leaves]
    flat = [
        torch.zeros(p.numel(), device=x.device) if grad is None else grad.flatten()
        for p, grad in zip(parameters, grads[1:], strict=True)
    ]
    if kind.entrance == DOWNSAMPLE and grads[3] is not None:
        # ``autograd.gradients`` reads it in the weight's own layout
        own = torch.empty_like(parameters[2]).copy_(grads[3])
        flat[2] = own.as_strided((own.numel(),), (1,))
    return grads[0], torch.cat(flat).float()
