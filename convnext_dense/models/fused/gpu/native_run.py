"""A program run by the driver: its arguments lie in one array, each a base's address
plus an offset, and one addition fills them all when a base has moved. A launch is one
call."""

import ctypes
import struct
import threading
from collections.abc import Sequence

import numpy as np
import torch

from . import native
from .compiled import Function, function_of
from .depthwise import layout
from .program import ConvolutionLaunch, Product, Program, Ref, TritonLaunch

_CUDA_TYPE = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 14}  # cudaDataType
_COMPUTE_FP32, _DEFAULT_ALGORITHM = 68, -1  # cublasComputeType, cublasGemmAlgo


class NativeRun:
    """A program, ready to run on a device.

    Args:
        program: what to run; its kernels are compiled here, if they are not yet.
        device: the number of the device.
        multiprocessors: of the device.
        jobs: the program's jobs, on the device.

    Raises:
        Unavailable: a kernel or a library cannot be had.
    """

    def __init__(
        self, program: Program, device: int, multiprocessors: int, jobs: torch.Tensor
    ):
        self._device, self._multiprocessors = device, multiprocessors
        self._native = native.current()
        self.jobs = jobs
        self._index = {name: i + 1 for i, name in enumerate(program.bases)}
        self._where: list[int] = []
        self._offsets: list[int] = []
        plans = [self._plan(launch) for launch in program.launches]
        self._where, self._offsets = (
            np.array(self._where, np.intp),
            np.array(self._offsets, np.uint64),
        )
        self._slots = np.zeros(len(self._where), np.uint64)
        self._bases = np.zeros(len(self._index) + 1, np.uint64)
        self._bases[self._index["jobs"]] = jobs.data_ptr()
        self._fixed: Sequence[int] | None = None
        self._parameters: Sequence[int] | None = None
        self._lock = threading.Lock()
        self._stream, self._handle = ctypes.c_void_p(), ctypes.c_void_p()
        self._one_zero = (ctypes.c_float * 2)(1.0, 0.0)
        self._kept = []
        start = self._slots.ctypes.data
        self._calls = [plan(start) for plan in plans]
        self._products = any(isinstance(v, Product) for v in program.launches)

    def __call__(self, fixed: Sequence[int], parameters: Sequence[int]) -> None:
        """Launch everything on the current stream.

        Args:
            fixed: the addresses of the bases before jobs, 0 for those not needed.
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
            if native.is_left_out():
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

    def _plan(self, launch):
        if isinstance(launch, Product):
            return self._plan_product(launch)
        if native.is_left_out():
            passed = [isinstance(a, Ref) or a != 1 for a in _arguments(launch)]
            function = Function(ctypes.c_void_p(), 1, 0, tuple(passed))
        else:
            function = function_of(launch, self._device)
        if isinstance(launch, TritonLaunch):
            arguments = zip(launch.arguments, function.passed, strict=True)
            own = [self._slot(a) for a, passed in arguments if passed]
            own += [self._slot(None), self._slot(None)]  # Triton's scratch
            return self._launch(function, launch.grid, own)
        division = layout(launch.shape, self._multiprocessors)
        arguments = [*_arguments(launch), *division.integers]
        own = [self._slot(a) for a in arguments]
        return self._launch(function, (division.grid, 1, 1), own)

    def _launch(self, function: Function, grid, own):
        def call(start):
            addresses = (ctypes.c_void_p * len(own))(*[start + 8 * i for i in own])
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

    def _plan_product(self, launch: Product):
        out, a, b, m, n, k, ta, tb, add = launch
        own = [self._slot(v) for v in (out, a, b)]

        def call(start):
            # cuBLAS has columns where these are rows: it makes the transpose
            at = [ctypes.c_void_p.from_address(start + 8 * i) for i in own]
            one = ctypes.c_void_p(ctypes.addressof(self._one_zero))
            zero = ctypes.c_void_p(ctypes.addressof(self._one_zero) + 4)
            return self._native.gemm, (
                *(self._handle, int(tb), int(ta), n, m, k, one),
                *(at[2], _CUDA_TYPE[b.dtype], k if tb else n),
                *(at[1], _CUDA_TYPE[a.dtype], m if ta else k),
                *(one if add else zero, at[0], _CUDA_TYPE[out.dtype], n),
                *(_COMPUTE_FP32, _DEFAULT_ALGORITHM),
            )

        return call

    def _slot(self, value) -> int:
        """A new place among the arguments; its number."""
        if isinstance(value, Ref):
            where, offset = self._index[value.base], value.offset
        elif value is None:
            where, offset = 0, 0
        elif isinstance(value, float):
            where, offset = 0, struct.unpack("I", struct.pack("f", value))[0]
        else:
            where, offset = 0, int(value) & 0xFFFFFFFFFFFFFFFF
        self._where.append(where)
        self._offsets.append(offset)
        return len(self._where) - 1


def _arguments(launch) -> list:
    if isinstance(launch, TritonLaunch):
        return launch.arguments
    if isinstance(launch, ConvolutionLaunch):
        return list(launch[:6])
    return list(launch[:3])
