"""Runs a stage: builds and caches its programs, allocates their tensors.

A ``Stage`` holds no parameters. ``stage_of`` returns the one for a description, and
each call passes the parameters. So models can be copied, moved, wrapped and saved
freely.
"""

import contextlib
import functools
from collections.abc import Sequence
from typing import overload

import torch
from mmengine.logging import print_log
from torch import Tensor

from . import native
from .backward import backward_program
from .description import STEM, Needs, Shape, StageSpec, Types
from .device import INTERPRETED, device_of
from .forward import forward_program
from .kernels.parameters import COLUMNS
from .native_run import NativeRun
from .places import Places, kept_bytes
from .plain_run import PlainRun, jobs_of
from .plan import Plan
from .program import Program, f32
from .stage_arguments import StageArguments

_MOST_TABLES = 64  # one for each model, and each time its parameters moved
_MOST_PROGRAMS = 256  # one for each shape, of some hundred KB of host memory


class Stage:
    """The forward and backward pass of a stage on one device.

    Args:
        spec: the stage.
        types: its number types.
        plan: the kernels that compute it.
        strides: of the entrance's convolution weight.
        device: the GPU's index, or None for a CPU (Triton's interpreter).
    """

    def __init__(
        self,
        spec: StageSpec,
        types: Types,
        plan: Plan,
        strides: tuple[int, ...],
        device: int | None,
    ):
        self.spec, self.types, self.plan = spec, types, plan
        self.device = device
        self.multiprocessors = device_of(device).multiprocessors
        self.places = Places(spec, types, plan, strides, self.multiprocessors)
        self._programs: dict[tuple, Program] = {}
        self._tables: dict[tuple[int, ...], Tensor] = {}
        self._recorded: list[Program | Tensor | None] = []

    def shape_of(self, x: Tensor, drops: bool, normed: torch.dtype | None) -> Shape:
        """The ``Shape`` of an input, which selects the program.

        Args:
            x: the input; its values do not matter.
            drops: whether drop path factors are passed.
            normed: the type of the normed map, or None.
        """
        n, _, height, width = x.shape
        if self.spec.entrance == STEM:
            return Shape(n, height, width, x.dtype, x.stride(), drops, normed)
        return Shape(n, height, width, self.types.stream, (), drops, normed)

    def forward(
        self, x: Tensor, arguments: StageArguments, shape: Shape, train: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Compute the stage's output.

        Args:
            x: the image, or the map of the stage before in channels_last.
            arguments: the parameters and the drop path factors.
            shape: the result of ``shape_of``.
            train: whether a backward pass may follow.

        Returns:
            The residual stream (N, C, H, W); the normed map, or None; and the bytes
            that the backward pass needs beside x and the stream, or None.
        """
        out, normed, kept = self.empty_outputs(x, shape, train)
        program = self.program(shape, train)
        ws = _bytes(program.workspace, x.device)
        table = self.table(arguments, x.device)
        tensors = (
            x,
            out,
            kept,
            normed,
            arguments.drop,
            table,
            None,
            None,
            None,
            None,
            ws,
        )
        self.run(program, tensors, arguments)
        return out, normed, kept

    def empty_outputs(
        self, x: Tensor, shape: Shape, train: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Empty tensors for the results of ``forward``."""
        c, device = self.spec.channels, x.device
        h, w = self.spec.out_size(shape.height, shape.width)
        size = shape.n, c, h, w
        out = _empty_map(size, self.types.stream, device)
        normed = kept = None
        if shape.normed is not None:
            normed = _empty_map(size, shape.normed, device)
        if train:
            count = kept_bytes(self.spec, self.types, shape.n * h * w)
            kept = _bytes(count, device)
        return out, normed, kept

    def backward(
        self,
        x: Tensor,
        out: Tensor | None,
        kept: Tensor,
        arguments: StageArguments,
        shape: Shape,
        requires_grad: tuple[bool, ...],
        g: Tensor | None,
        g_normed: Tensor | None,
    ) -> tuple[Tensor | None, Tensor]:
        """Compute the gradient of x and those of all parameters.

        Args:
            x, out, kept, arguments, shape: as in the forward pass.
            requires_grad: whether a gradient is needed: of x, then of each parameter.
            g, g_normed: the gradients of the stream and of the normed map; one of them
                may be None.

        Returns:
            The gradient of x, or None if it is not needed; and the gradients of all
            parameters in one fp32 tensor, undefined where none is needed.
        """
        g = as_map(g, self.types.stream)
        g_normed = _aligned(g_normed, shape.normed)
        program = self.program(shape, needs_of(requires_grad, g, g_normed))
        dx, grads = self.empty_gradients(x, requires_grad)
        ws = _bytes(program.workspace, x.device)
        table = self.table(arguments, x.device)
        tensors = x, out, kept, None, arguments.drop, table, g, g_normed, dx, grads, ws
        self.run(program, tensors, arguments)
        return dx, grads

    def empty_gradients(
        self, x: Tensor, requires_grad: tuple[bool, ...]
    ) -> tuple[Tensor | None, Tensor]:
        """Empty tensors for the results of ``backward``."""
        dx = None
        if requires_grad[0]:
            dx = torch.empty_like(x, memory_format=torch.channels_last)
        return dx, torch.empty(self.places.starts[-1], dtype=f32, device=x.device)

    def program(self, shape: Shape, needs: Needs | bool) -> Program:
        """The program for a shape, from the cache or newly built.

        Args:
            shape: the input's.
            needs: for the backward pass, its needs. For the forward pass a bool:
                whether it is for training.
        """
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
        self,
        program: Program,
        tensors: Sequence[Tensor | None],
        arguments: StageArguments,
    ) -> None:
        """Launch a program.

        Args:
            program: one of this stage's.
            tensors: those of ``places.BASES`` without the last, None for unused ones.
            arguments: the parameters.
        """
        x = tensors[0]
        assert x is not None
        with _on(self.device):
            if program.runner is None:
                program.runner = self.runner(program, x.device)
            if isinstance(program.runner, PlainRun):
                program.runner([*tensors, None, *arguments.parameters])
                return
            if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
                # The CUDA graph that is being recorded keeps using their addresses.
                self._recorded += [program, tensors[5]]
            pointers = [0 if t is None else t.data_ptr() for t in tensors]
            program.runner(pointers, arguments.addresses)

    def runner(self, program: Program, device: torch.device) -> NativeRun | PlainRun:
        """The runner of a program, with its kernels compiled.

        Raises:
            Unavailable: a kernel cannot be compiled or loaded.
        """
        jobs = jobs_of(program, device)
        if INTERPRETED and not native.launches_are_skipped():
            return PlainRun(program, jobs)
        try:
            return NativeRun(program, self.device or 0, self.multiprocessors, jobs)
        except native.NoDriver as error:
            _log_once(
                f"ConvNeXt's kernels are launched by Triton, not directly: {error}"
            )
            return PlainRun(program, jobs)

    def table(self, arguments: StageArguments, device: torch.device) -> Tensor:
        """The table of addresses that ``kernels.parameters`` reads."""
        key = tuple(arguments.addresses)
        table = self._tables.get(key)
        if table is None:
            rows = []
            for block in range(self.spec.blocks):
                first = self.places.of_block(block, 0)
                row = [0] * COLUMNS
                for index, column in enumerate(self.spec.columns):
                    row[column] = arguments.addresses[first + index]
                rows.append(row)
            table = torch.tensor(rows, dtype=torch.int64).to(device)
            if len(self._tables) >= _MOST_TABLES:
                self._tables.pop(next(iter(self._tables)))
            self._tables[key] = table
        return table


@functools.cache  # once
def _log_once(message: str) -> None:
    """Log a message the first time it occurs."""
    print_log(message, "current")


@functools.lru_cache(maxsize=256)
def stage_of(
    spec: StageSpec,
    types: Types,
    plan: Plan,
    strides: tuple[int, ...],
    device: int | None,
) -> Stage:
    """The ``Stage`` of these arguments, from the cache or new."""
    return Stage(spec, types, plan, strides, device)


def _empty_map(size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty map (N, C, H, W) in channels_last, also where C or H W is 1."""
    n, c, h, w = size
    strides = h * w * c, 1, w * c, c
    return torch.empty_strided((n, c, h, w), strides, dtype=dtype, device=device)


def _bytes(count: int, device: torch.device) -> Tensor:
    """An empty tensor of bytes."""
    return torch.empty(count, dtype=torch.uint8, device=device)


def needs_of(
    requires_grad: tuple[bool, ...], g: Tensor | None, g_normed: Tensor | None
) -> Needs:
    """The ``Needs`` of a backward pass with these incoming gradients."""
    strides: tuple[int, ...] = ()
    if g_normed is not None and not _is_map(g_normed):
        strides = g_normed.stride()
    return Needs(tuple(requires_grad), g is not None, g_normed is not None, strides)


@overload
def as_map(grad: Tensor, dtype: torch.dtype | None) -> Tensor: ...
@overload
def as_map(grad: None, dtype: torch.dtype | None) -> None: ...
@overload
def as_map(grad: Tensor | None, dtype: torch.dtype | None) -> Tensor | None: ...
def as_map(grad: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
    """A gradient as kernels read it: channels_last, in ``dtype``, 16-byte aligned."""
    grad = _aligned(grad, dtype)
    if grad is None or _is_map(grad):
        return grad
    return grad.contiguous(memory_format=torch.channels_last)


def _is_map(grad: Tensor) -> bool:
    """Whether a tensor is contiguous in channels_last."""
    return grad.is_contiguous(memory_format=torch.channels_last)


def _aligned(grad: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
    """A gradient in ``dtype`` and 16-byte aligned, in any layout."""
    if grad is None:
        return None
    if grad.dtype != dtype:
        grad = grad.to(dtype)
    if grad.data_ptr() % 16:
        grad = grad.clone(memory_format=torch.channels_last)
    return grad


def _on(device: int | None):
    """A context in which the device is the current one; free if it already is."""
    if (
        device is None
        or native.launches_are_skipped()
        or torch.cuda.current_device() == device
    ):
        return contextlib.nullcontext()
    return torch.cuda.device(device)
