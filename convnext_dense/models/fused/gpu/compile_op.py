"""A stage as one opaque operator for ``torch.compile``."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from . import autograd, reference
from .best_stage import ALIGNMENT, stage_for
from .description import DOWNSAMPLE, STEM, StageSpec, Types
from .modules import precision_of
from .places import kept_bytes
from .stage import as_map
from .stage_arguments import StageArguments


def apply_stage(
    spec: StageSpec,
    types: Types,
    x: Tensor,
    parameters: Sequence[Tensor],
    drop: Tensor | None,
    normed: torch.dtype | None,
) -> tuple[Tensor, Tensor | None]:
    """``autograd.apply_stage`` as an operator, which chooses the way when it runs."""
    train = autograd.needs_backward(x, parameters)
    described = *spec, *types[:-1]
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
    """The operator ``convnext_dense::stage``: a stage's forward pass.

    Returns:
        The stream, the normed map and the bytes kept for the backward pass. The last
        two are empty tensors if there is none.
    """
    spec = StageSpec(entrance, before, channels, blocks, layer_scale, grn, norm, eps)
    types = Types(work, stream, parameter_type, precision_of(work))
    x = _as_read(spec, x)
    stage = _stage_for(spec, types, x, parameters, drop, normed, train)
    if stage is not None:
        shape = stage.shape_of(x, drop is not None, normed)
        arguments = StageArguments.of(parameters, drop)
        out, map_, kept = stage.forward(x, arguments, shape, train)
    else:
        out, map_ = _plain(spec, types, x, parameters, drop, normed)
        kept = x.new_empty(_kept_bytes(spec, types, x, train), dtype=torch.uint8)
    return out, *(_empty(x) if t is None else t for t in (map_, kept))


@_stage.register_fake
def _(x, parameters, drop, *arguments):
    """Empty results of ``_stage``, from which torch.compile takes shapes and types."""
    *described, normed, train = arguments
    spec, types = _described(described)
    maps = [_map_like(spec, x, types.stream)]
    maps.append(_empty(x) if normed is None else _map_like(spec, x, normed))
    count = _kept_bytes(spec, types, x, train)
    return *maps, x.new_empty(count, dtype=torch.uint8)


@torch.library.custom_op("convnext_dense::stage_backward", mutates_args=())
def _stage_backward(
    g: Tensor | None,
    g_normed: Tensor | None,
    wanted: list[bool],  # of x and of each parameter: whether a gradient is needed
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
    """The operator ``convnext_dense::stage_backward``: a stage's backward pass.

    Returns:
        The gradient of x, empty if it is not needed, and those of all parameters in one
        fp32 tensor.
    """
    spec = StageSpec(entrance, before, channels, blocks, layer_scale, grn, norm, eps)
    types = Types(work, stream, parameter_type, precision_of(work))
    x = _as_read(spec, x)
    stage = _stage_for(spec, types, x, parameters, drop, normed, True)
    if stage is not None:
        shape = stage.shape_of(x, drop is not None, normed)
        arguments = StageArguments.of(parameters, drop)
        x, out = autograd.restore_layout(x, shape), as_map(out, stream)
        dx, grads = stage.backward(
            x, out, kept, arguments, shape, tuple(wanted), g, g_normed
        )
    else:
        grad_arguments = parameters, drop, normed, wanted, g, g_normed
        dx, grads = _with_autograd(
            lambda: _plain_backward(spec, types, x, *grad_arguments), x
        )
    return _empty(x) if dx is None else dx, grads


@_stage_backward.register_fake
def _(g, g_normed, wanted, x, out, kept, parameters, *rest):
    """Empty results of ``_stage_backward``."""
    dx = _empty(x)
    if wanted[0]:
        dx = torch.empty_like(x, memory_format=torch.channels_last)
    count = sum(p.numel() for p in parameters)
    return dx, x.new_empty(count, dtype=torch.float32)


def _setup_context(ctx, inputs, output):
    """Save what the backward operator needs."""
    x, parameters, drop, *described, normed, _ = inputs
    ctx.save_for_backward(x, drop, output[0], output[2], *parameters)
    ctx.described, ctx.normed = described, normed
    ctx.set_materialize_grads(False)


def _gradient(ctx, g, g_normed, _):
    """The gradients of the operator's inputs."""
    x, drop, out, kept, *parameters = ctx.saved_tensors
    spec, types = _described(ctx.described)
    of_x, of_parameters = ctx.needs_input_grad[:2]
    if not isinstance(of_parameters, list | tuple):
        of_parameters = [p.requires_grad for p in parameters]
    requires_grad = [of_x, *of_parameters]
    if ctx.normed is None:
        g_normed = None
    if g is None and g_normed is None:
        nothing = [None] * len(parameters)
        return None, nothing, *(None,) * (len(ctx.described) + 3)
    dx, grads = _stage_backward(
        g,
        g_normed,
        requires_grad,
        x,
        out,
        kept,
        parameters,
        drop,
        *ctx.described,
        ctx.normed,
    )
    views = autograd.gradients(spec, types, grads, parameters, requires_grad[1:])
    return dx if of_x else None, views, *(None,) * (len(ctx.described) + 3)


_stage.register_autograd(_gradient, setup_context=_setup_context)


def _described(arguments: Sequence) -> tuple[StageSpec, Types]:
    """Spec and types from an operator's arguments."""
    count = len(StageSpec._fields)
    return StageSpec(*arguments[:count]), Types(*arguments[count:])


def _stage_for(spec, types, x, parameters, drop, normed, train):
    """``best_stage.stage_for``, from inside an operator."""

    def find():
        with torch.set_grad_enabled(train):
            return stage_for(spec, types, x, parameters, drop is not None, normed)

    asked = spec, types, x.shape, x.device, drop is None, normed, train
    if asked in _asked:
        return find()
    stage = _with_autograd(find, x)  # proofs run backward passes
    _asked.add(asked)
    return stage


_asked: set[tuple] = set()


def _with_autograd(call: Callable, x: Tensor):
    """The result of ``call``, with autograd enabled.

    Inside an operator autograd records nothing. So ``call`` runs in another thread.
    """
    stream = torch.cuda.current_stream(x.device) if x.is_cuda else None

    def run():
        with torch.cuda.stream(stream):
            return call()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def _as_read(spec: StageSpec, x: Tensor) -> Tensor:
    """The input in the layout that the kernels read; a compiler may have changed it."""
    if spec.entrance != STEM:
        x = x.contiguous(memory_format=torch.channels_last)
    if x.data_ptr() % ALIGNMENT:
        x = x.clone(memory_format=torch.preserve_format)
    return x


def _kept_bytes(spec: StageSpec, types: Types, x: Tensor, train: bool) -> int:
    """The bytes kept for the backward pass."""
    if not train:
        return 0
    h, w = spec.out_size(*x.shape[2:])
    return kept_bytes(spec, types, len(x) * h * w)


def _map_like(spec: StageSpec, x: Tensor, dtype: torch.dtype) -> Tensor:
    """An empty output map for an input."""
    h, w = spec.out_size(*x.shape[2:])
    size = len(x), spec.channels, h, w
    return x.new_empty(size, dtype=dtype).to(memory_format=torch.channels_last)


def _empty(x: Tensor) -> Tensor:
    """A tensor without numbers, which stands for None."""
    return x.new_empty(0, dtype=torch.uint8)


def _plain(spec, types, x, parameters, drop, normed):
    """The stream and the normed map in plain PyTorch."""
    mixed = types.work != types.parameters or types.split
    with torch.autocast(x.device.type, types.work, enabled=mixed):
        out, map_ = reference.run(spec, x, parameters, drop)
    cl = torch.channels_last
    out = out.to(types.stream).contiguous(memory_format=cl)
    if map_ is not None:
        map_ = map_.to(normed).contiguous(memory_format=cl)
    return out, map_


def _plain_backward(
    spec, types, x, parameters, drop, normed, requires_grad, g, g_normed
):
    """The results of ``_stage_backward`` in plain PyTorch."""
    with torch.enable_grad():
        leaves = [
            t.detach().requires_grad_(want)
            for t, want in zip((x, *parameters), requires_grad, strict=True)
        ]
        outs = _plain(spec, types, leaves[0], leaves[1:], drop, normed)
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
    if spec.entrance == DOWNSAMPLE and grads[1 + spec.entrance_weight] is not None:
        # ``autograd.gradients`` reads this gradient in the weight's layout.
        index = spec.entrance_weight
        grad = torch.empty_like(parameters[index]).copy_(grads[1 + index])
        flat[index] = grad.as_strided((grad.numel(),), (1,))
    return grads[0], torch.cat(flat).float()
