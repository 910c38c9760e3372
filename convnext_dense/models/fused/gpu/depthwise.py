"""Writes the launches of the depthwise 7x7 convolution and of its gradients."""

from . import depthwise_cuda
from .kernels import depthwise as kernels
from .places import Places
from .program import (
    ConvolutionLaunch,
    Program,
    Ref,
    Sum,
    WeightGradientLaunch,
    Workspace,
    f32,
)

CUDA, TRITON = "cuda", "triton"


def layout(
    shape: tuple[int, int, int, int], multiprocessors: int
) -> depthwise_cuda.MapDivision:
    """How the CUDA C++ kernels divide a map of N, H, W, C."""
    n, h, w, c = shape
    # Registers allow two blocks on a multiprocessor.
    return depthwise_cuda.layout(n, h, w, c, multiprocessors=multiprocessors, blocks=2)


def convolution(
    p: Program,
    places: Places,
    x: Ref,
    y: Ref,
    shape: tuple[int, int, int, int],
    block: int,
) -> None:
    """Append y = the convolution of x, with its bias. ``shape`` is N, H, W, C."""
    weight = places.parameter(places.of_block(block, 0))
    bias = places.parameter(places.of_block(block, 1))
    _launch(p, places, ConvolutionLaunch(x, weight, bias, None, None, y, shape, False))


def input_gradient(
    p: Program,
    places: Places,
    du: Ref,
    g: Ref,
    wide: Ref,
    narrow: Ref | None,
    shape: tuple[int, int, int, int],
    block: int,
) -> None:
    """Append wide = g + the gradient of the convolution's input.

    Args:
        p, places: the program and its addresses.
        du: the gradient of the convolution's output.
        g: the gradient of the residual stream.
        wide: the sum; it may be g.
        narrow: the sum in its own type, or None.
        shape: N, H, W, C.
        block: the block's index.
    """
    weight = places.parameter(places.of_block(block, 0))
    if narrow is None:
        launch = ConvolutionLaunch(du, weight, None, g, None, wide, shape, True)
    else:
        launch = ConvolutionLaunch(du, weight, None, g, wide, narrow, shape, True)
    _launch(p, places, launch)


def _launch(p: Program, places: Places, launch: ConvolutionLaunch) -> None:
    """Append a convolution, by the CUDA C++ kernel or by the Triton kernel."""
    if places.plan.depthwise == CUDA:
        p.launches.append(launch)
        return
    n, h, w, c = launch.shape
    x, weight, bias, g, wide, y = launch[:6]
    rows, columns, block, warps = kernels.convolution_tile(c)
    add = 0 if g is None else (1 if wide is None else 2)
    arguments = [x, weight, bias or weight, g or x, wide or y, y, h, w]
    constants = (c, launch.flip, bias is not None, add, rows, columns, block)
    grid = kernels.convolution_grid(n, h, w, c)
    p.triton(kernels.convolution, grid, arguments, constants, warps)


def weight_gradient(
    p: Program,
    places: Places,
    x: Ref,
    du: Ref,
    shape: tuple[int, int, int, int],
    block: int,
    workspace: Workspace,
) -> Sum:
    """Append partial sums of the gradient of the convolution's weight.

    Args:
        p, places: the program and its addresses.
        x: the convolution's input.
        du: the gradient of its output.
        shape: N, H, W, C.
        block: the block's index.
        workspace: takes the partial sums.

    Returns:
        The sum that is left to compute.
    """
    n, h, w, c = shape
    target = places.gradient(places.of_block(block, 0))
    if places.plan.depthwise == CUDA:
        parts = layout(shape, places.multiprocessors).tiles
        partial = workspace.take(parts * 49 * c, f32)
        p.launches.append(WeightGradientLaunch(x, du, partial, shape, parts))
        return Sum(partial, target, parts, 49 * c, 49 * c)
    rows, columns, channels, warps = kernels.convolution_tile(c)
    units, blocks = kernels.convolution_grid(n, h, w, c)
    splits = kernels.weight_gradient_splits(n, h, w, c, places.multiprocessors)
    partial = workspace.take(splits * 49 * c, f32)
    p.triton(
        kernels.weight_gradient,
        (7, blocks, splits),
        [x, du, partial, h, w, units, splits],
        (c, rows, columns, channels),
        warps,
    )
    return Sum(partial, target, splits, 49 * c, 49 * c)
