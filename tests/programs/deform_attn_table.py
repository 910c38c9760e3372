"""Prints Markdown tables of multi-scale deformable attention on a GPU.

Time of a forward pass, of a forward and backward pass, the host's part of both (until
the calls return), peak memory and error of four implementations, in turn:

- mmcv: its own CUDA kernels, compiled here by NVRTC from the source that mmcv installs,
  with the grids and block sizes of its host code (``tests/helpers/mmcv_deform_attn``)
- Triton and PyTorch: this package's
- grid_sample: mmcv's PyTorch function, which is used where no op is compiled

The first three run in this package's autograd function, as in a model. The error is
relative to float64. If the error of this package's implementations, or of mmcv's in
fp32, is too large, the line says FAILED and the exit code is 1.

    python -m tests.programs.deform_attn_table --seconds 0.3
    python -m tests.programs.deform_attn_table --tiles      # which tile is the fastest
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor

import convnext_dense  # noqa: F401  (before mmcv.ops, which has no compiled ops)

# isort: split
from mmcv.ops import multi_scale_deform_attn

from convnext_dense.commands.benchmark import clock, machine
from convnext_dense.errors import InputError
from convnext_dense.models.fused.gpu.nvrtc import Unavailable
from convnext_dense.ops import ms_deform_attn_backward, ms_deform_attn_forward
from convnext_dense.ops.deform_attn import MultiScaleDeformableAttnFunction, operators

from ..helpers import mmcv_deform_attn
from ..helpers.deform_attn import Inputs

f32, f16, bf16 = torch.float32, torch.float16, torch.bfloat16
NAMES = {f32: "fp32", f16: "fp16", bf16: "bf16"}
# Of the norm of a tensor. Half precision is rounded once.
TOLERANCE = {f32: 1e-5, f16: 1e-3, bf16: 8e-3}
HEADS, CHANNELS, POINTS = 8, mmcv_deform_attn.CHANNELS, 4


class Setting(NamedTuple):
    """What is computed.

    Attributes:
        name: of the layer.
        sizes: height and width of each level.
        queries: None for an encoder, where each cell has a query.
        dtype: of all tensors.
        images: the batch size.
    """

    name: str
    sizes: tuple[tuple[int, int], ...]
    queries: int | None
    dtype: torch.dtype
    images: int = 2

    def __str__(self) -> str:
        return f"{self.name}, {NAMES[self.dtype]}"


# Levels of an image of 800 x 1333 at strides 8 to 64, and of 1024 x 1024 at 8 to 32.
_DINO = (100, 167), (50, 84), (25, 42), (13, 21)
_MASK2FORMER = (128, 128), (64, 64), (32, 32)
SETTINGS = (
    *(Setting("DINO encoder", _DINO, None, dtype) for dtype in (f32, f16, bf16)),
    *(Setting("DINO decoder", _DINO, 900, dtype) for dtype in (f32, f16, bf16)),
    *(Setting("Mask2Former", _MASK2FORMER, None, dtype) for dtype in (f32, f16)),
)


def inputs(setting: Setting, device: str) -> Inputs:
    """Random inputs that sample around each query's reference point, as a model does.

    The reference points of an encoder are the cells' centres. The samples are 2 cells
    away in the mean, and never near a centre, where the gradient jumps.
    """
    torch.manual_seed(0)
    shapes = torch.tensor(setting.sizes, device=device)
    cells = shapes.prod(1)
    n, count = setting.images, int(cells.sum())
    reference = torch.cat(
        [
            torch.cartesian_prod(*((torch.arange(side) + 0.5) / side for side in size))
            for size in setting.sizes
        ]
    ).flip(1)
    if setting.queries is not None:
        reference = torch.rand(setting.queries, 2)
    queries = len(reference)
    samples = n, queries, HEADS, len(setting.sizes), POINTS
    sizes = shapes.flip(1)[:, None]
    place = reference.to(device)[:, None, None, None] * sizes - 0.5
    place = place + 2 * torch.randn(*samples, 2, device=device)
    place = place.floor() + 0.1 + 0.8 * (place - place.floor())
    tensors = (
        torch.randn(n, count, HEADS, CHANNELS, device=device),
        (place + 0.5) / sizes,
        torch.rand(samples, device=device).flatten(3).softmax(3).view(samples),
        torch.randn(n, queries, HEADS * CHANNELS, device=device),
    )
    value, locations, weights, grad = (t.to(setting.dtype) for t in tensors)
    return Inputs(value, shapes, cells.cumsum(0) - cells, locations, weights, grad)


class Ops(NamedTuple):
    """The two ops, under the names by which the autograd function calls them."""

    ms_deform_attn_forward: Callable
    ms_deform_attn_backward: Callable

    def __call__(self, given: Inputs) -> Tensor:
        """The output, with a graph for the backward pass."""
        # The function looks for its ops in the module, also in the backward pass.
        for name, op in self._asdict().items():
            setattr(operators, name, op)
        return MultiScaleDeformableAttnFunction.apply(*given[:5], 64)


def _without_triton(op: Callable) -> Callable:
    """The op as it is where Triton does not work."""

    def run(*arguments, **options):
        with mock.patch.object(operators, "_triton_works", False):
            return op(*arguments, **options)

    return run


def _grid_sample(given: Inputs) -> Tensor:
    """mmcv's PyTorch function."""
    value, shapes, _, locations, weights, _ = given
    function = multi_scale_deform_attn.multi_scale_deformable_attn_pytorch
    return function.__wrapped__(value, shapes, locations, weights)


MMCV, TRITON, PYTORCH, GRID_SAMPLE = "mmcv", "Triton", "PyTorch", "grid_sample"
IMPLEMENTATIONS: dict[str, Callable[[Inputs], Tensor]] = {
    MMCV: Ops(
        mmcv_deform_attn.ms_deform_attn_forward,
        mmcv_deform_attn.ms_deform_attn_backward,
    ),
    TRITON: Ops(ms_deform_attn_forward, ms_deform_attn_backward),
    PYTORCH: Ops(
        _without_triton(ms_deform_attn_forward),
        _without_triton(ms_deform_attn_backward),
    ),
    GRID_SAMPLE: _grid_sample,
}


def both(implementation: Callable, given: Inputs) -> list[Tensor]:
    """The output, and the gradients of value, locations and weights."""
    leaves = [given.value, given.locations, given.weights]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    value, locations, weights = leaves
    given = given._replace(value=value, locations=locations, weights=weights)
    out = implementation(given)
    return [out.detach(), *torch.autograd.grad(out, leaves, given.grad)]


def largest_error(mine: Sequence[Tensor], true: Sequence[Tensor]) -> float:
    """The largest error of a tensor, as a share of its norm; infinity for NaN."""
    shares = [
        ((a.double() - b).norm() / b.norm()).item()
        for a, b in zip(mine, true, strict=True)
    ]
    return max(share if share == share else torch.inf for share in shares)


def _peak(function: Callable, device: str) -> int | None:
    """Bytes that a call allocates at most at a time; None on a CPU."""
    if device != "cuda":
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def lines(setting: Setting, device: str, seconds: float) -> Iterator[str]:
    """The lines of a setting, one for each implementation that takes its type."""
    given = inputs(setting, device)
    exact = given._replace(
        **{
            name: getattr(given, name).double()
            for name in ("value", "locations", "weights", "grad")
        }
    )
    true = both(IMPLEMENTATIONS[PYTORCH], exact)
    candidates, errors = {}, {}
    for name, implementation in IMPLEMENTATIONS.items():
        if name == MMCV and setting.dtype not in mmcv_deform_attn.SCALARS:
            continue
        try:
            errors[name] = largest_error(both(implementation, given), true)
            candidates[name] = implementation
        except Exception as error:
            if not isinstance(error, Unavailable):
                traceback.print_exc()
            words = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            yield _line(setting, name, f"FAILED: {words}")
    del exact, true
    passes = []
    for implementation in candidates.values():
        passes += [
            lambda run=implementation: run(given),
            lambda run=implementation: both(run, given),
        ]
    times = clock.in_turn(passes, device, seconds)
    pairs = zip(times[::2], times[1::2], strict=True)
    by_name = dict(zip(candidates, pairs, strict=True))
    for name, implementation in candidates.items():
        cells = []
        for index, time in enumerate(by_name[name]):
            ratio = ""
            if MMCV in by_name:
                ratio = f" ({time.wall / by_name[MMCV][index].wall:.2f})"
            cells += [f"{time.wall:.3f}{ratio}", f"{time.host:.3f}"]
        peak = _peak(lambda run=implementation: both(run, given), device)
        cells.append("" if peak is None else f"{peak / 1e6:.0f}")
        checked = name in (TRITON, PYTORCH) or (name == MMCV and setting.dtype == f32)
        failed = checked and errors[name] > TOLERANCE[setting.dtype]
        cells.append(f"{'FAILED: ' * failed}{errors[name]:.1e}")
        yield _line(setting, name, *cells)


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


HEADER = (
    *("setting", "implementation", "forward, ms (of mmcv)", "host"),
    *("forward and backward, ms (of mmcv)", "host", "peak, MB", "error"),
)


def tile_lines(device: str, seconds: float) -> Iterator[str]:
    """The time of each kernel with several tiles; * marks the tile in use."""
    from convnext_dense.ops.deform_attn import launches

    yield _line("setting", "kernel", *(f"{q} queries, {w} warps" for q, w in TILES))
    for setting in SETTINGS:
        if setting.dtype == bf16 or setting.name == "Mask2Former":
            continue  # like fp16, and like DINO's encoder
        given = inputs(setting, device)
        of_value = torch.zeros_like(given.value, dtype=f32)
        runs = {
            "forward": lambda tile, given=given: launches.forward(
                *given[:5], tile=launches.Tile(*tile)
            ),
            "backward": lambda tile, given=given, of_value=of_value: launches.backward(
                *given, of_value, tile=launches.Tile(*tile)
            ),
        }
        for name, run in runs.items():
            used = getattr(launches, f"{name}_tile")(CHANNELS, POINTS)
            calls = [lambda tile=tile, run=run: run(tile) for tile in TILES]
            times = clock.in_turn(calls, device, seconds)
            cells = (
                f"{time.wall:.3f}{' *' * (tile == used)}"
                for time, tile in zip(times, TILES, strict=True)
            )
            yield _line(setting, name, *cells)


TILES = (2, 2), (4, 2), (8, 2), (4, 4), (8, 4), (16, 4), (32, 4), (16, 8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 1 if a line failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=1, help="how long to time each setting (1)"
    )
    parser.add_argument(
        "--tiles", action="store_true", help="time the Triton kernels' tiles instead"
    )
    args = parser.parse_args(arguments)
    try:
        device = machine.choose_device("cuda")
    except InputError:
        parser.exit(2, "torch finds no GPU, so there is nothing to measure\n")
    print(machine.describe(device), end="\n\n", flush=True)
    if args.tiles:
        for line in tile_lines(device, args.seconds):
            print(line, flush=True)
        return 0
    print(_line(*HEADER), _line(*["---"] * len(HEADER)), sep="\n")
    failed = False
    for setting in SETTINGS:
        for line in lines(setting, device, args.seconds):
            print(line, flush=True)
            failed |= "FAILED" in line
        torch.cuda.empty_cache()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
