"""A stage of ConvNeXt: its programs, and what they are given.

``Stage`` holds no parameters; it is found by what it is (``stage_of``) and given them
at each call. So models can be copied, moved, wrapped and saved without a thought to it.
"""

import contextlib
import functools
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor

from . import native
from .backward import backward_program
from .description import STEM, Needs, Shape, StageKind, Types
from .device import INTERPRETED, device_of
from .forward import forward_program
from .given import Given
from .kernels.parameters import COLUMNS
from .native_run import NativeRun
from .places import Places, kept_bytes
from .plain_run import PlainRun, jobs_of
from .plan import Plan
from .program import Program, f32

_MOST_TABLES = 64  # models of one kind, or places that their parameters had
_MOST_PROGRAMS = 256  # shapes come and go: each takes some hundred KB of host memory


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
        self._programs: dict[tuple, Program] = {}
        self._tables: dict[tuple[int, ...], Tensor] = {}
        self._recorded: list = []

    def shape_of(self, x: Tensor, drops: bool, normed: torch.dtype | None) -> Shape:
        """What decides the programs for an input.

        Args:
            x: the input; its values do not matter.
            drops: whether drop path's factors come.
            normed: the type of the normed map, or None.
        """
        n, _, height, width = x.shape
        if self.kind.entrance == STEM:
            return Shape(n, height, width, x.dtype, x.stride(), drops, normed)
        return Shape(n, height, width, self.types.stream, (), drops, normed)

    def forward(
        self, x: Tensor, given: Given, shape: Shape, train: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The stage's output.

        Args:
            x: the image, or the map of the stage before in channels_last.
            given: parameters and drop path's factors.
            shape: of ``shape_of``.
            train: whether a backward pass may come.

        Returns:
            the stream (N, C, H, W); the normed map, or None; and what the backward pass
            needs beside x and the stream, as bytes.
        """
        out, normed, kept = self.empty_outputs(x, shape, train)
        program = self.program(shape, train)
        ws = _bytes(program.workspace, x.device)
        table = self.table(given, x.device)
        tensors = x, out, kept, normed, given.drop, table, None, None, None, None, ws
        self.run(program, tensors, given)
        return out, normed, kept

    def empty_outputs(self, x: Tensor, shape: Shape, train: bool):
        """Room for what ``forward`` returns."""
        c, device = self.kind.channels, x.device
        h, w = self.kind.out_size(shape.height, shape.width)
        size = shape.n, c, h, w
        out = _empty_map(size, self.types.stream, device)
        normed = kept = None
        if shape.normed is not None:
            normed = _empty_map(size, shape.normed, device)
        if train:
            count = kept_bytes(self.kind, self.types, shape.n * h * w)
            kept = _bytes(count, device)
        return out, normed, kept

    def backward(
        self,
        x: Tensor,
        out: Tensor | None,
        kept: Tensor,
        given: Given,
        shape: Shape,
        wanted: tuple[bool, ...],
        g: Tensor | None,
        g_normed: Tensor | None,
    ) -> tuple[Tensor | None, Tensor]:
        """The gradient of x, if wanted, and those of all parameters in one tensor.

        Args:
            x, out, kept, given, shape: as in the forward pass.
            wanted: of x and of each parameter: whether its gradient is. The others'
                places in the result hold nothing.
            g, g_normed: the gradients of the stream and of the normed map; one may be
                None.
        """
        g = as_map(g, self.types.stream)
        g_normed = _aligned(g_normed, shape.normed)
        program = self.program(shape, needs_of(wanted, g, g_normed))
        dx, grads = self.empty_gradients(x, wanted)
        ws = _bytes(program.workspace, x.device)
        table = self.table(given, x.device)
        tensors = x, out, kept, None, given.drop, table, g, g_normed, dx, grads, ws
        self.run(program, tensors, given)
        return dx, grads

    def empty_gradients(self, x: Tensor, wanted: tuple[bool, ...]):
        """Room for what ``backward`` returns."""
        dx = None
        if wanted[0]:
            dx = torch.empty_like(x, memory_format=torch.channels_last)
        return dx, torch.empty(self.places.starts[-1], dtype=f32, device=x.device)

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

    def run(
        self, program: Program, tensors: Sequence[Tensor | None], given: Given
    ) -> None:
        """Launch a program. ``tensors``: for ``places.BASES``, but the last."""
        with _on(self.device):
            if program.runner is None:
                program.runner = self.runner(program, tensors[0].device)
            if isinstance(program.runner, PlainRun):
                program.runner([*tensors, None, *given.parameters])
                return
            if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
                # somebody's CUDA graph has their addresses from now on
                self._recorded += [program, tensors[5]]
            pointers = [0 if t is None else t.data_ptr() for t in tensors]
            program.runner(pointers, given.addresses)

    def runner(self, program: Program, device: torch.device) -> NativeRun | PlainRun:
        """What runs a program; its kernels are compiled.

        Raises:
            Unavailable: a kernel cannot be had.
        """
        jobs = jobs_of(program, device)
        if INTERPRETED and not native.is_left_out():
            return PlainRun(program, jobs)
        try:
            return NativeRun(program, self.device or 0, self.multiprocessors, jobs)
        except native.NoDriver as error:
            _tell(f"ConvNeXt's kernels are launched by Triton, not directly: {error}")
            return PlainRun(program, jobs)

    def table(self, given: Given, device: torch.device) -> Tensor:
        """The table of ``kernels.parameters`` for these parameters."""
        key = tuple(given.addresses)
        table = self._tables.get(key)
        if table is None:
            rows = []
            for block in range(self.kind.blocks):
                first = self.places.of_block(block, 0)
                row = [0] * COLUMNS
                for index, column in enumerate(self.kind.columns):
                    row[column] = given.addresses[first + index]
                rows.append(row)
            table = torch.tensor(rows, dtype=torch.int64).to(device)
            if len(self._tables) >= _MOST_TABLES:
                self._tables.pop(next(iter(self._tables)))
            self._tables[key] = table
        return table


@functools.cache  # once
def _tell(message: str) -> None:
    print_log(message, "current")


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


def needs_of(
    wanted: tuple[bool, ...], g: Tensor | None, g_normed: Tensor | None
) -> Needs:
    """What a backward program has to make of what."""
    strides: tuple[int, ...] = ()
    if g_normed is not None and not _is_map(g_normed):
        strides = g_normed.stride()
    return Needs(tuple(wanted), g is not None, g_normed is not None, strides)


def as_map(grad: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A gradient in channels_last, in a type, at a multiple of 16 bytes."""
    grad = _aligned(grad, dtype)
    if grad is None or _is_map(grad):
        return grad
    return grad.contiguous(memory_format=torch.channels_last)


def _is_map(grad: Tensor) -> bool:
    return grad.is_contiguous(memory_format=torch.channels_last)


def _aligned(grad: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
    if grad is None:
        return None
    if grad.dtype != dtype:
        grad = grad.to(dtype)
    if grad.data_ptr() % 16:
        grad = grad.clone(memory_format=torch.channels_last)
    return grad


def _on(device: int | None):
    """A context with the device as the current one; free where it is already."""
    if device is None or native.is_left_out() or torch.cuda.current_device() == device:
        return contextlib.nullcontext()
    return torch.cuda.device(device)
