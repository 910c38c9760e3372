"""Runs a program with the CUDA driver and cuBLAS.

The arguments of all launches lie in one array. Each is the address of a base plus an
offset, so one vector addition updates them all when a base has moved. A launch is one
call of a C function.
"""

import ctypes
import struct
import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch

from . import native
from .compiled import Function, KernelLaunch, function_of
from .depthwise import layout
from .program import (
    ConvolutionLaunch,
    Launch,
    Product,
    Program,
    Ref,
    TritonLaunch,
)

_Call = tuple[Callable, tuple]  # a C function and its arguments
_CUDA_TYPE = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 14}  # cudaDataType
_COMPUTE_FP32, _DEFAULT_ALGORITHM = 68, -1  # cublasComputeType, cublasGemmAlgo


class NativeRun:
    """A program, ready to run on a device.

    Args:
        program: the program; its kernels are compiled now unless they already are.
        device: the GPU's index.
        multiprocessors: the number of its multiprocessors.
        jobs: the program's jobs, on the device.

    Raises:
        Unavailable: a kernel or a library is not available.
    """

    def __init__(
        self, program: Program, device: int, multiprocessors: int, jobs: torch.Tensor
    ):
        self._device, self._multiprocessors = device, multiprocessors
        self._native = native.current()
        self.jobs = jobs
        self._index = {name: i + 1 for i, name in enumerate(program.bases)}
        self._slot_bases: list[int] = []
        self._slot_offsets: list[int] = []
        plans = [self._plan(launch) for launch in program.launches]
        self._where = np.array(self._slot_bases, np.intp)
        self._offsets = np.array(self._slot_offsets, np.uint64)
        self._slots = np.zeros(len(self._where), np.uint64)
        self._bases = np.zeros(len(self._index) + 1, np.uint64)
        self._bases[self._index["jobs"]] = jobs.data_ptr()
        self._fixed: Sequence[int] | None = None
        self._parameters: Sequence[int] | None = None
        self._lock = threading.Lock()
        self._stream, self._handle = ctypes.c_void_p(), ctypes.c_void_p()
        self._one_zero = (ctypes.c_float * 2)(1.0, 0.0)  # cuBLAS's alpha and beta
        self._kept: list[ctypes.Array] = []  # the calls hold only their addresses
        start = self._slots.ctypes.data
        self._calls = [plan(start) for plan in plans]
        self._products = any(isinstance(v, Product) for v in program.launches)

    def __call__(self, fixed: Sequence[int], parameters: Sequence[int]) -> None:
        """Launch everything on the current stream.

        Args:
            fixed: the addresses of the bases before ``jobs``, 0 for unused ones.
            parameters: the parameters' addresses.

        Raises:
            RuntimeError: the driver or cuBLAS refuses a launch.
        """
        with self._lock:
            moved = fixed != self._fixed
            if parameters != self._parameters:
                self._bases[len(fixed) + 2 :] = parameters
                self._parameters, moved = parameters, True
            if moved:
                self._bases[1 : len(fixed) + 1] = fixed
                self._fixed = fixed
                np.take(self._bases, self._where, out=self._slots)
                np.add(self._slots, self._offsets, out=self._slots)
            self._stream.value = self._native.stream(self._device)
            if self._products:
                self._handle.value = self._native.blas(self._device)
            if native.launches_are_skipped():
                for function, arguments in self._calls:
                    function(*arguments)
                return
            for function, arguments in self._calls:
                code = function(*arguments)
                if code:
                    raise RuntimeError(
                        f"a launch of ConvNeXt's kernels ended with code {code} of "
                        "CUDA's driver or cuBLAS. CONVNEXT_DENSE_GPU=plain computes "
                        "without these kernels"
                    )

    def _plan(self, launch: Launch) -> Callable[[int], _Call]:
        """Reserve the slots of a launch's arguments.

        Returns:
            A function from the address of the first slot to the C call. The array of
            slots exists only after all launches have reserved theirs.
        """
        if isinstance(launch, Product):
            return self._plan_product(launch)
        if native.launches_are_skipped():
            passed = [isinstance(a, Ref) or a != 1 for a in _arguments(launch)]
            function = Function(ctypes.c_void_p(), 1, 0, tuple(passed))
        else:
            function = function_of(launch, self._device)
        if isinstance(launch, TritonLaunch):
            pairs = zip(launch.arguments, function.passed, strict=True)
            slots = [self._slot(a) for a, passed in pairs if passed]
            slots += [self._slot(None), self._slot(None)]  # Triton's scratch
            return self._launch(function, launch.grid, slots)
        division = layout(launch.shape, self._multiprocessors)
        arguments = [*_arguments(launch), *division.integers]
        slots = [self._slot(a) for a in arguments]
        return self._launch(function, (division.grid, 1, 1), slots)

    def _launch(
        self, function: Function, grid: tuple[int, int, int], slots: list[int]
    ) -> Callable[[int], _Call]:
        """Prepare a call of cuLaunchKernel."""

        def call(start: int) -> _Call:
            places = [start + 8 * slot for slot in slots]
            addresses = (ctypes.c_void_p * len(places))(*places)
            self._kept.append(addresses)
            return self._native.launch, (
                function.handle,
                *grid,
                *(function.threads, 1, 1),
                function.shared,
                self._stream,
                ctypes.c_void_p(ctypes.addressof(addresses)),
                None,
            )

        return call

    def _plan_product(self, launch: Product) -> Callable[[int], _Call]:
        """Prepare a call of cublasGemmEx."""
        out, a, b, m, n, k, ta, tb, add = launch
        slots = [self._slot(ref) for ref in (out, a, b)]

        def call(start: int) -> _Call:
            # cuBLAS stores matrices by columns, these are stored by rows: it computes
            # the transposed product from the transposed factors.
            at = [ctypes.c_void_p.from_address(start + 8 * slot) for slot in slots]
            alpha = ctypes.c_void_p(ctypes.addressof(self._one_zero))
            beta = ctypes.c_void_p(ctypes.addressof(self._one_zero) + (0 if add else 4))
            return self._native.gemm, (
                *(self._handle, int(tb), int(ta), n, m, k, alpha),
                *(at[2], _CUDA_TYPE[b.dtype], k if tb else n),
                *(at[1], _CUDA_TYPE[a.dtype], m if ta else k),
                *(beta, at[0], _CUDA_TYPE[out.dtype], n),
                *(_COMPUTE_FP32, _DEFAULT_ALGORITHM),
            )

        return call

    def _slot(self, value) -> int:
        """Reserve a slot for an argument: a Ref, a number, or None for a null pointer.

        Returns the index of the slot.
        """
        if isinstance(value, Ref):
            where, offset = self._index[value.base], value.offset
        elif value is None:
            where, offset = 0, 0
        elif isinstance(value, float):
            where, offset = 0, struct.unpack("I", struct.pack("f", value))[0]
        else:
            where, offset = 0, int(value) & 0xFFFFFFFFFFFFFFFF
        self._slot_bases.append(where)
        self._slot_offsets.append(offset)
        return len(self._slot_bases) - 1


def _arguments(launch: KernelLaunch) -> list:
    """The arguments of a launch that lie in slots, without the division of a map."""
    if isinstance(launch, TritonLaunch):
        return launch.arguments
    if isinstance(launch, ConvolutionLaunch):
        return list(launch[:6])
    return list(launch[:3])
