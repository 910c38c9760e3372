"""The CUDA driver and cuBLAS, called directly.

A launch through Triton's or PyTorch's own functions takes 10 to 25 microseconds of
Python. A launch by ctypes with prepared arguments takes one. cuLaunchKernel and
cublasGemmEx are stable C interfaces. cuda-bindings is no replacement: its wrapper of
cuLaunchKernel builds the arguments anew at each call.
"""

import contextlib
import ctypes
import functools
import glob
import os
from collections.abc import Iterator

import torch

from .nvrtc import Unavailable


class NoDriver(Unavailable):
    """The driver or cuBLAS cannot be called directly; PyTorch and Triton can."""


_SHARED_SIZE, _SHARED_CARVEOUT = 8, 9  # CUfunction_attribute
_DEFAULT_SHARED = 48 * 1024


class Native:
    """What runs a prepared launch.

    Attributes:
        launch: cuLaunchKernel. ``gemm``: cublasGemmEx. Both return 0 if all is well.
        stream, blas: functions of a device's number: the current stream, and cuBLAS's
            handle for it, as integers.
    """

    def __init__(self):
        # PyDLL: nothing here blocks, and to let go of Python's lock costs time.
        self.cuda = _library("libcuda.so.1", "CUDA's driver")
        self.launch = self.cuda.cuLaunchKernel
        self.gemm = _library(_cublas(), "cuBLAS").cublasGemmEx
        self.stream = torch._C._cuda_getCurrentRawStream

    @staticmethod
    def blas(device: int) -> int:
        return torch.cuda.current_blas_handle()

    def load(self, binary) -> ctypes.c_void_p:
        """The function of a ``depthwise_cuda.Binary`` on the current device."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        cuda = self.cuda
        _check(cuda.cuModuleLoadData(ctypes.byref(module), binary.cubin), binary.name)
        name = binary.name.encode()
        code = cuda.cuModuleGetFunction(ctypes.byref(function), module, name)
        _check(code, binary.name)
        shared = binary.shared
        if shared > _DEFAULT_SHARED:
            code = cuda.cuFuncSetAttribute(function, _SHARED_SIZE, shared)
            _check(code, binary.name)
        # as much of the multiprocessor's memory as the blocks that fit on it need
        percent = min(100, -(-binary.blocks * (shared + 1024) * 100 // (228 * 1024)))
        _check(
            cuda.cuFuncSetAttribute(function, _SHARED_CARVEOUT, percent), binary.name
        )
        return function

    def parameters(self, function: int) -> int | None:
        """How many arguments a kernel takes; None if the driver cannot tell."""
        info = getattr(self.cuda, "cuFuncGetParamInfo", None)
        if info is None:  # before CUDA 12.4
            return None
        offset, size = ctypes.c_size_t(), ctypes.c_size_t()
        count = 0
        while count < 256 and not info(
            ctypes.c_void_p(function),
            ctypes.c_size_t(count),
            ctypes.byref(offset),
            ctypes.byref(size),
        ):
            count += 1
        return count


class _LeftOut:
    """Launches that do nothing, to time what is around them; see ``left_out``."""

    def __init__(self):
        nothing = ctypes.PyDLL(None).getpid
        self.launch = self.gemm = nothing
        self.stream = self.blas = lambda device: 0


_left_out: _LeftOut | None = None


def current() -> Native | _LeftOut:
    """What to launch with.

    Raises:
        NoDriver: there is no driver or no cuBLAS.
    """
    return _left_out or _native()


@functools.cache
def _native() -> Native:
    return Native()


def is_left_out() -> bool:
    return _left_out is not None


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Leave all launches out, to measure the host's part, also without a GPU."""
    global _left_out
    _left_out = _LeftOut()
    try:
        yield
    finally:
        _left_out = None


def _library(path: str, what: str) -> ctypes.PyDLL:
    try:
        return ctypes.PyDLL(path)
    except OSError as error:
        raise NoDriver(f"{what} cannot be loaded: {error}") from error


def _cublas() -> str:
    """The cuBLAS that PyTorch has loaded, or would load."""
    major = (torch.version.cuda or "").split(".")[0]
    name = f"libcublas.so.{major}"
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        for line in maps:
            if line.rstrip().endswith(name):
                return line.split(maxsplit=5)[5].strip()
    site = os.path.dirname(os.path.dirname(torch.__file__))
    return next(iter(glob.glob(f"{site}/nvidia/*/lib/{name}")), name)


def _check(code: int, name: str) -> None:
    if code:
        raise Unavailable(f"CUDA's driver refuses the kernel {name}: error {code}")
