"""A stage of ConvNeXt: its programs, and what they are given.

``Stage`` holds no parameters; it is found by what it is (``stage_of``) and given them at
each call. So models can be copied, moved, wrapped and saved without a thought to it.
"""

import contextlib
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from . import native
from .backward import backward_program
from .description import STEM, Needs, Shape, StageKind, Types
from .device import INTERPRETED, device_of
from .forward import forward_program
from .kernels.parameters import COLUMNS
from .native_run import NativeRun
from .places import BASES, Places, kept_bytes
from .plain_run import PlainRun, jobs_of
from .plan import Plan
from .program import Program, f32

_MOST_PROGRAMS = 256  # shapes come and go: each takes some hundred KB of host memory
_FIXED = len(BASES) - 1  # all but jobs are given at each call


class Stage:
    """The forward and backward pass of a stage on one device.

    Args:
        kind, types, plan: what is computed, and how.
        strides: of the entrance's convolution weight.
        device: the number of the GPU, or None for a CPU (Triton's interpreter).
    """

    def __init__(
        self,
        kind: StageKind,
        types: Types,
        plan: Plan,
        strides: tuple[int, ...],
        device: int | None,
    ):
        self.kind, self.types, self.plan = kind, types, plan
        self.device = device
        self.multiprocessors = device_of(device).multiprocessors
        self.places = Places(kind, types, plan, strides, self.multiprocessors)
        self.sizes = self.places.sizes
        self._programs: dict[tuple, Program] = {}
        self._pointers: list[int] = []
        self._table: Tensor | None = None

    def shape_of(
        self, x: Tensor, drop: Tensor | None, normed: torch.dtype | None
    ) -> Shape:
        """What decides the programs for an input."""
        n, _, height, width = x.shape
        strides = x.stride() if self.kind.entrance == STEM else ()
        return Shape(n, height, width, x.dtype, strides, drop is not None, normed)

    def forward(
        self,
        x: Tensor,
        parameters: Sequence[Tensor],
        drop: Tensor | None,
        shape: Shape,
        train: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The stage's output.

        Args:
            x: the image, or the map of the stage before in channels_last.
            parameters: in the order of ``StageKind``.
            drop: drop path's factors, (blocks, N) in fp32.
            shape: of ``shape_of``.
            train: whether a backward pass may come.

        Returns:
            the stream (N, C, H, W); the normed map, or None; and what the backward pass
            needs beside x and the stream, as bytes.
        """
        program = self.program(shape, train)
        n, c = shape.n, self.kind.channels
        h, w = self.kind.out_size(shape.height, shape.width)
        out = _empty_map((n, c, h, w), self.types.stream, x.device)
        kept = normed = None
        if train:
            kept = _bytes(kept_bytes(self.kind, self.types, n * h * w), x.device)
        if shape.normed is not None:
            normed = _empty_map((n, c, h, w), shape.normed, x.device)
        self._run(
            program, parameters, x=x, out=out, kept=kept, normed=normed, drop=drop
        )
        return out, normed, kept

    def backward(
        self,
        x: Tensor,
        out: Tensor | None,
        kept: Tensor,
        drop: Tensor | None,
        parameters: Sequence[Tensor],
        shape: Shape,
        wanted: tuple[bool, ...],
        g: Tensor | None,
        g_normed: Tensor | None,
    ) -> tuple[Tensor | None, Tensor]:
        """The gradient of x, if wanted, and those of all parameters in one tensor.

        Args:
            x, out, kept, drop, parameters, shape: as in the forward pass.
            wanted: of x and of each parameter: whether its gradient is. The others'
                places in the result hold nothing.
            g, g_normed: the gradients of the stream and of the normed map; one may be
                None.
        """
        needs = Needs(wanted, g is not None, g_normed is not None)
        program = self.program(shape, needs)
        dx = None
        if wanted[0]:
            dx = torch.empty_like(x, memory_format=torch.channels_last)
        grads = torch.empty(self.places.starts[-1], dtype=f32, device=x.device)
        self._run(
            program,
            parameters,
            x=x,
            out=out,
            kept=kept,
            drop=drop,
            g=_as_map(g, self.types.stream),
            g_normed=_as_map(g_normed, shape.normed),
            dx=dx,
            grads=grads,
        )
        return dx, grads

    def program(self, shape: Shape, needs: Needs | bool) -> Program:
        """The launches for a shape: forwards if ``needs`` is a bool (for training or
        not), else back."""
        key = shape, needs
        program = self._programs.get(key)
        if program is None:
            if len(self._programs) >= _MOST_PROGRAMS:
                self._programs.clear()
            if isinstance(needs, Needs):
                program = backward_program(self.places, shape, needs)
            else:
                program = forward_program(self.places, shape, needs)
            self._programs[key] = program
        return program

    def _run(self, program: Program, parameters: Sequence[Tensor], **tensors) -> None:
        device = tensors["x"].device
        workspace = _bytes(program.workspace, device)
        addresses = [p.data_ptr() for p in parameters]
        table = self._addresses(addresses, device)
        if program.runner is None:
            program.runner = self._runner(program, device)
        tensors |= {"ws": workspace, "table": table}
        fixed = [tensors.get(name) for name in BASES[:_FIXED]]
        if isinstance(program.runner, PlainRun):
            program.runner([*fixed, None, *parameters])
            return
        pointers = [0 if t is None else t.data_ptr() for t in fixed]
        pointers += [program.runner.jobs.data_ptr(), *addresses]
        with _on(self.device):
            program.runner(pointers)

    def _runner(self, program: Program, device: torch.device):
        jobs = jobs_of(program, device)
        if INTERPRETED and not native.is_left_out():
            return PlainRun(program, jobs)
        return NativeRun(program, self.device or 0, self.multiprocessors, jobs)

    def _addresses(self, addresses: list[int], device: torch.device) -> Tensor:
        """The table of ``kernels.parameters``; made anew when a parameter has moved."""
        if addresses != self._pointers:
            rows = []
            for block in range(self.kind.blocks):
                first = self.places.of_block(block, 0)
                row = [0] * COLUMNS
                for index, column in enumerate(self.kind.columns):
                    row[column] = addresses[first + index]
                rows.append(row)
            self._table = torch.tensor(rows, dtype=torch.int64).to(device)
            self._pointers = addresses
        return self._table


@functools.lru_cache(maxsize=256)
def stage_of(
    kind: StageKind,
    types: Types,
    plan: Plan,
    strides: tuple[int, ...],
    device: int | None,
) -> Stage:
    """The one ``Stage`` of its arguments."""
    return Stage(kind, types, plan, strides, device)


def _empty_map(size, dtype: torch.dtype, device: torch.device) -> Tensor:
    n, c, h, w = size
    strides = h * w * c, 1, w * c, c
    return torch.empty_strided((n, c, h, w), strides, dtype=dtype, device=device)


def _bytes(count: int, device: torch.device) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device=device)


def _as_map(grad: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
    """A gradient as kernels read it: channels_last, at a multiple of 16 bytes."""
    if grad is None:
        return None
    if grad.dtype != dtype:
        grad = grad.to(dtype)
    if not grad.is_contiguous(memory_format=torch.channels_last) or (
        grad.data_ptr() % 16
    ):
        grad = grad.clone(memory_format=torch.channels_last)
    return grad


def _on(device: int | None):
    """A context with the device as the current one; free where it is already."""
    if device is None or native.is_left_out() or torch.cuda.current_device() == device:
        return contextlib.nullcontext()
    return torch.cuda.device(device)
