"""Compiles and loads the kernels of launches, once per process and in parallel."""

import atexit
import contextlib
import ctypes
import functools
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from . import depthwise_cuda, native
from .nvrtc import NoConvolution, Unavailable
from .program import (
    ConvolutionLaunch,
    Product,
    Program,
    Ref,
    TritonLaunch,
    WeightGradientLaunch,
)

KernelLaunch = TritonLaunch | ConvolutionLaunch | WeightGradientLaunch


class Function(NamedTuple):
    """A kernel that is loaded on a device.

    Attributes:
        handle: the driver's CUfunction.
        threads: of a block.
        shared: bytes of dynamic shared memory.
        passed: for a Triton kernel, which of the launch's arguments it takes.
    """

    handle: ctypes.c_void_p
    threads: int
    shared: int
    passed: tuple[bool, ...] = ()


class _Pointer:
    """Passes a tensor's type and alignment to Triton's compiler, without a tensor."""

    def __init__(self, place: Ref):
        self.dtype, self._offset = place.dtype, place.offset % 16

    def data_ptr(self) -> int:
        """An address with the tensor's alignment."""
        return self._offset


_functions: dict[tuple, Function] = {}
_kept: list = []  # Triton's kernels: they own the loaded functions


def function_of(launch: KernelLaunch, device: int) -> Function:
    """The loaded kernel of a launch.

    Raises:
        Unavailable: it cannot be compiled, or the device cannot load it.
    """
    key = device, _key(launch)
    if key not in _functions:
        with torch.cuda.device(device):
            if isinstance(launch, TritonLaunch):
                _functions[key] = _finished(launch, _compile_triton(launch))
            else:
                binary = _compile_cuda(launch, torch.cuda.get_device_capability())
                handle = native.loaded().load(binary)
                _functions[key] = Function(handle, binary.threads, binary.shared)
    return _functions[key]


def compile_all(programs: Sequence[Program], device: int) -> None:
    """Compile the kernels of programs on several threads; see ``function_of``."""
    missing: dict[tuple, KernelLaunch] = {}
    for program in programs:
        for launch in program.launches:
            if not isinstance(launch, Product):
                missing.setdefault((device, _key(launch)), launch)
    missing = {k: launch for k, launch in missing.items() if k not in _functions}
    if not missing:
        return
    capability = torch.cuda.get_device_capability(device)
    with (
        torch.cuda.device(device),
        ThreadPoolExecutor(max(1, min(16, (os.cpu_count() or 1) - 1))) as pool,
    ):
        cuda = [
            pool.submit(_compile_cuda, launch, capability)
            for launch in missing.values()
            if not isinstance(launch, TritonLaunch)
        ]
        _compile_together(
            [v for v in missing.values() if isinstance(v, TritonLaunch)], pool
        )
        for job in cuda:
            job.result()


def _compile_together(launches, pool) -> None:
    """Compile Triton kernels in parallel, if this version of Triton can.

    Errors are ignored: ``function_of`` compiles the kernel again and raises them.
    """
    try:
        from triton.runtime._async_compile import AsyncCompileMode
    except ImportError:  # before Triton 3.4
        return
    with contextlib.suppress(Exception), AsyncCompileMode(pool):
        for launch in launches:
            with contextlib.suppress(Unavailable):
                _compile_triton(launch)


def _key(launch: KernelLaunch) -> tuple:
    """The key of a kernel: everything by which it is compiled."""
    if isinstance(launch, TritonLaunch):
        arguments = tuple(_argument_key(a) for a in launch.arguments)
        return launch.kernel, arguments, launch.constants, launch.warps, launch.stages
    width = launch.shape[2]
    if isinstance(launch, WeightGradientLaunch):
        return "weight gradient", depthwise_cuda.strips(width), launch.x.dtype
    return (
        "convolution",
        *(depthwise_cuda.strips(width), launch.x.dtype, launch.weight.dtype),
        *(launch.bias is not None, launch.flip, _added(launch)),
    )


def _argument_key(argument) -> tuple:
    """What Triton specializes a kernel on: type and alignment, or the value 1."""
    if isinstance(argument, Ref):
        return argument.dtype, argument.offset % 16 == 0
    return argument == 1, argument % 16 == 0, -(2**31) <= argument < 2**31


def _added(launch: ConvolutionLaunch) -> str:
    """The argument ``add`` of ``depthwise_cuda.convolution``."""
    if launch.g is None:
        return "none"
    return "half" if launch.wide is None else "float"


@functools.cache
def _let_triton_keep_kernels() -> None:
    """Give Triton a temporary cache folder if its own cannot be written.

    Without a cache folder Triton compiles nothing.
    """
    if "TRITON_CACHE_DIR" in os.environ:
        return
    home = os.environ.get("TRITON_HOME") or os.path.expanduser("~")
    try:
        folder = Path(home, ".triton", "cache")
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        folder = tempfile.mkdtemp(prefix="convnext_dense_")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["TRITON_CACHE_DIR"] = folder


def _compile_triton(launch: TritonLaunch):
    """Compile a Triton kernel.

    Raises:
        Unavailable: Triton cannot compile it.
    """
    _let_triton_keep_kernels()
    arguments = [_Pointer(a) if isinstance(a, Ref) else a for a in launch.arguments]
    try:
        return launch.kernel.warmup(
            *arguments,
            *launch.constants,
            grid=(1,),
            num_warps=launch.warps,
            num_stages=launch.stages,
        )
    except Exception as error:  # whatever Triton's compiler can raise
        name = launch.kernel.__name__
        raise Unavailable(f"Triton cannot compile {name}: {error}") from error


def _finished(launch: TritonLaunch, kernel) -> Function:
    """Load a compiled Triton kernel.

    Raises:
        NoDriver: this version of Triton has other internals, or the kernel takes
            arguments that ``native_run`` does not pass.
        Unavailable: the device cannot load the kernel.
    """
    name = launch.kernel.__name__
    try:
        kernel = kernel.result() if hasattr(kernel, "result") else kernel
        # Internals of Triton; they may differ in another version.
        kernel._init_handles()
        types = list(kernel.src.signature.values())
        handle, metadata = kernel.function, kernel.metadata
    except (AttributeError, TypeError) as error:
        raise native.NoDriver(f"unknown version of Triton: {error}") from error
    except Exception as error:  # whatever Triton can raise, such as OutOfResources
        raise Unavailable(f"Triton cannot load {name}: {error}") from error
    passed = tuple(name != "constexpr" for name in types[: len(launch.arguments)])
    for scratch in ("global_scratch_size", "profile_scratch_size"):
        if getattr(metadata, scratch, 0):
            raise native.NoDriver(f"{name} needs {scratch}, which is not passed")
    taken = native.loaded().parameters(handle)
    # Triton's two scratch pointers come last
    if taken is not None and not sum(passed) <= taken <= sum(passed) + 2:
        raise native.NoDriver(f"{name} takes {taken} arguments, not {sum(passed)}")
    _kept.append(kernel)
    return Function(ctypes.c_void_p(handle), 32 * launch.warps, metadata.shared, passed)


def _compile_cuda(launch, capability) -> depthwise_cuda.Binary:
    """Compile a CUDA C++ kernel.

    Raises:
        NoConvolution: it cannot be compiled.
    """
    try:
        return _compile_convolution(launch, capability)
    except Unavailable as error:
        raise NoConvolution(str(error)) from error


def _compile_convolution(launch, capability) -> depthwise_cuda.Binary:
    """Compile the kernel of a convolution or of a weight gradient."""
    half, width = launch.x.dtype, launch.shape[2]
    architecture = depthwise_cuda.architecture(capability)
    if isinstance(launch, WeightGradientLaunch):
        return depthwise_cuda.weight_gradient(width, half, architecture)
    return depthwise_cuda.convolution(
        width,
        half,
        launch.weight.dtype,
        bias=launch.bias is not None,
        flip=launch.flip,
        add=_added(launch),
        architecture=architecture,
    )
