"""Runs a program with Triton's launcher and PyTorch, without calling the driver.

Tests use it with Triton's interpreter. GPUs use it if the driver cannot be called.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from .nvrtc import Unavailable
from .program import (
    SIZE,
    ConvolutionLaunch,
    Product,
    Program,
    Ref,
    TritonLaunch,
    WeightGradientLaunch,
)


class PlainRun:
    """A program, ready to run; ``jobs`` are its jobs, on the device."""

    def __init__(self, program: Program, jobs: Tensor):
        self._program, self._jobs = program, jobs

    def __call__(self, tensors: Sequence[Tensor | None]) -> None:
        """Run all launches; ``tensors`` are the bases, None for unused ones."""
        named = dict(zip(self._program.bases, tensors, strict=True))
        named["jobs"] = self._jobs
        bases = {name: _bytes(t) for name, t in named.items() if t is not None}
        with torch.autocast(self._jobs.device.type, enabled=False):
            self._launch_all(bases)

    def _launch_all(self, bases: dict[str, Tensor]) -> None:
        """Run all launches; ``bases`` are the tensors' bytes by name."""
        for launch in self._program.launches:
            if isinstance(launch, TritonLaunch):
                _launch(bases, launch)
            elif isinstance(launch, ConvolutionLaunch):
                _convolve(bases, launch)
            elif isinstance(launch, WeightGradientLaunch):
                _weight_gradient(bases, launch)
            else:
                _multiply(bases, launch)


def _launch(bases: dict[str, Tensor], launch: TritonLaunch) -> None:
    """Launch a Triton kernel.

    Raises:
        Unavailable: Triton cannot compile or launch it.
    """
    try:
        launch.kernel[launch.grid](
            *[_numbers(bases, a) for a in launch.arguments],
            *launch.constants,
            num_warps=launch.warps,
            num_stages=launch.stages,
        )
    except Exception as error:  # whatever Triton's compiler can raise
        name = launch.kernel.__name__
        raise Unavailable(f"Triton cannot run {name}: {error}") from error


def _bytes(tensor: Tensor) -> Tensor:
    """The memory between a tensor's first and last number, as bytes."""
    count = 1 + sum(
        (n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return tensor.detach().as_strided((count,), (1,)).view(torch.uint8)


def _numbers(bases: dict[str, Tensor], argument, count: int | None = None):
    """The numbers that a Ref points to, ``count`` of them or all; other arguments as
    they are."""
    if not isinstance(argument, Ref):
        return argument
    size = SIZE[argument.dtype]
    data = bases[argument.base][argument.offset :]
    data = data[: len(data) // size * size if count is None else count * size]
    return data.view(argument.dtype)


def _map(bases, place: Ref, shape) -> Tensor:
    """A channels_last map as (N, C, H, W)."""
    n, h, w, c = shape
    return _numbers(bases, place, n * h * w * c).view(n, h, w, c).permute(0, 3, 1, 2)


def _convolve(bases, launch: ConvolutionLaunch) -> None:
    """The convolution of ``depthwise_cuda.convolution`` in PyTorch."""
    x, weight, bias, g, wide, y, shape, flip = launch
    c = shape[3]
    taps = _numbers(bases, weight, 49 * c).view(c, 1, 7, 7).to(x.dtype).float()
    if flip:
        taps = taps.flip(2, 3)
    shift = None if bias is None else _numbers(bases, bias, c).float()
    value = F.conv2d(_map(bases, x, shape).float(), taps, shift, padding=3, groups=c)
    if g is not None:
        value = value + _map(bases, g, shape)
    if wide is not None:
        _map(bases, wide, shape).copy_(value)
    _map(bases, y, shape).copy_(value)


def _weight_gradient(bases, launch: WeightGradientLaunch) -> None:
    """The gradient of ``depthwise_cuda.weight_gradient`` in PyTorch, all of it in the
    first of the partial sums."""
    c = launch.shape[3]
    x, grad = (_map(bases, t, launch.shape).float() for t in launch[:2])
    value = conv2d_weight(x, (c, 1, 7, 7), grad, padding=3, groups=c)
    parts = _numbers(bases, launch.partial, launch.parts * 49 * c).view(-1, 49 * c)
    parts.zero_()
    parts[0] = value.flatten()


def _multiply(bases, launch: Product) -> None:
    """A product in PyTorch."""
    out, a, b, m, n, k, ta, tb, add = launch
    left = _numbers(bases, a, m * k)
    right = _numbers(bases, b, n * k)
    left = left.view(k, m).t() if ta else left.view(m, k)
    right = right.view(n, k).t() if tb else right.view(k, n)
    total = _numbers(bases, out, m * n).view(m, n)
    if out.dtype != a.dtype:
        left, right = left.to(out.dtype), right.to(out.dtype)
    value = left @ right
    total.copy_(value + total if add else value)


def jobs_of(program: Program, device: torch.device) -> Tensor:
    """The program's jobs as a tensor on the device, (jobs, 5)."""
    rows = program.jobs or [[0] * 5]
    return torch.tensor([list(row) for row in rows], dtype=torch.int64).to(device)
