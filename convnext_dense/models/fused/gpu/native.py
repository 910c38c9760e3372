"""Calls the CUDA driver and cuBLAS directly, by ctypes.

A launch through Triton's or PyTorch's functions takes 10 to 25 microseconds of Python.
A launch by ctypes with prepared arguments takes one. cuLaunchKernel and cublasGemmEx
are stable C interfaces. cuda-bindings cannot replace ctypes: its wrapper of
cuLaunchKernel converts the arguments again at each call.
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
    """The driver or cuBLAS cannot be called directly; ``plain_run`` still works."""


_SHARED_SIZE, _SHARED_CARVEOUT = 8, 9  # CUfunction_attribute
_DEFAULT_SHARED = 48 * 1024


class Native:
    """The functions that launch kernels and cuBLAS products.

    Attributes:
        launch: cuLaunchKernel; it returns 0 on success.
        gemm: cublasGemmEx; it returns 0 on success.
        stream: maps a device's index to the handle of its current stream.
    """

    def __init__(self):
        # PyDLL keeps Python's lock: the calls do not block, and releasing costs time.
        self.cuda = _library("libcuda.so.1", "CUDA's driver")
        self.launch = self.cuda.cuLaunchKernel
        self.gemm = _library(_cublas(), "cuBLAS").cublasGemmEx
        self.stream = torch._C._cuda_getCurrentRawStream

    @staticmethod
    def blas(device: int) -> int:
        """The cuBLAS handle of the current stream of the current device."""
        return torch.cuda.current_blas_handle()

    def load(self, binary) -> ctypes.c_void_p:
        """Load a ``depthwise_cuda.Binary`` on the current device.

        Raises:
            Unavailable: the driver refuses the kernel.
        """
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
        # As much shared memory as the blocks on a multiprocessor need, 1 KiB of each
        # for the system.
        percent = min(100, -(-binary.blocks * (shared + 1024) * 100 // (228 * 1024)))
        _check(
            cuda.cuFuncSetAttribute(function, _SHARED_CARVEOUT, percent), binary.name
        )
        return function

    def parameters(self, function: int) -> int | None:
        """The number of a kernel's arguments; None if the driver is too old to tell."""
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


class _SkippedLaunches:
    """Launches that do nothing; see ``skipped_launches``."""

    def __init__(self):
        nothing = ctypes.PyDLL(None).getpid
        self.launch = self.gemm = nothing
        self.stream = self.blas = lambda device: 0


_skipped: _SkippedLaunches | None = None


def current() -> Native | _SkippedLaunches:
    """The launch functions in use.

    Raises:
        NoDriver: there is no driver or no cuBLAS.
    """
    return _skipped or loaded()


@functools.cache
def loaded() -> Native:
    """The driver and cuBLAS.

    Raises:
        NoDriver: there is no driver or no cuBLAS.
    """
    return Native()


def launches_are_skipped() -> bool:
    """Whether ``skipped_launches`` is active."""
    return _skipped is not None


@contextlib.contextmanager
def skipped_launches() -> Iterator[None]:
    """Skip all launches, to measure the host's time, also without a GPU."""
    global _skipped
    _skipped = _SkippedLaunches()
    try:
        yield
    finally:
        _skipped = None


def _library(path: str, what: str) -> ctypes.PyDLL:
    """Load a library.

    Raises:
        NoDriver: it cannot be loaded.
    """
    try:
        return ctypes.PyDLL(path)
    except OSError as error:
        raise NoDriver(f"{what} cannot be loaded: {error}") from error


def _cublas() -> str:
    """The path of the cuBLAS that PyTorch has loaded, or would load."""
    major = (torch.version.cuda or "").split(".")[0]
    name = f"libcublas.so.{major}"
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        for line in maps:
            if line.rstrip().endswith(name):
                return line.split(maxsplit=5)[5].strip()
    site = os.path.dirname(os.path.dirname(torch.__file__))
    return next(iter(glob.glob(f"{site}/nvidia/*/lib/{name}")), name)


def _check(code: int, name: str) -> None:
    """Raise ``Unavailable`` for an error code of the driver."""
    if code:
        raise Unavailable(f"CUDA's driver refuses the kernel {name}: error {code}")
