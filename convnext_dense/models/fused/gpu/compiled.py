"""Kernels of launches, compiled for a device: once a process, several at a time."""

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


class Function(NamedTuple):
    """``handle``: the driver's; ``shared``: bytes of dynamic shared memory;
    ``passed``: which of its arguments a Triton kernel takes."""

    handle: ctypes.c_void_p
    threads: int
    shared: int
    passed: tuple[bool, ...] = ()


class _Pointer:
    """Stands for a tensor when Triton looks at an argument's type and alignment."""

    def __init__(self, place: Ref):
        self.dtype, self._offset = place.dtype, place.offset % 16

    def data_ptr(self) -> int:
        return self._offset


_functions: dict[tuple, Function] = {}
_kept: list = []  # modules that functions belong to


def function_of(launch, device: int) -> Function:
    """The compiled kernel of a launch, on a device.

    Raises:
        Unavailable: it cannot be compiled, or the device cannot have it.
    """
    key = device, _key(launch)
    if key not in _functions:
        with torch.cuda.device(device):
            if isinstance(launch, TritonLaunch):
                _functions[key] = _finished(launch, _compile_triton(launch))
            else:
                binary = _compile_cuda(launch, torch.cuda.get_device_capability())
                handle = native.current().load(binary)
                _functions[key] = Function(handle, binary.threads, binary.shared)
    return _functions[key]


def compile_all(programs: Sequence[Program], device: int) -> None:
    """Compile what the programs need, on several threads; see ``function_of``."""
    missing = {}
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
    """Triton's compilations side by side, where this Triton can; else one by one later.

    What fails here fails again, and is told, when it is asked for.
    """
    try:
        from triton.runtime._async_compile import AsyncCompileMode
    except ImportError:  # before Triton 3.4
        return
    with contextlib.suppress(Exception), AsyncCompileMode(pool):
        for launch in launches:
            with contextlib.suppress(Unavailable):
                _compile_triton(launch)


def _key(launch) -> tuple:
    if isinstance(launch, TritonLaunch):
        kinds = tuple(_argument_key(a) for a in launch.arguments)
        return launch.kernel, kinds, launch.constants, launch.warps, launch.stages
    width = launch.shape[2]
    if isinstance(launch, WeightGradientLaunch):
        return "weight gradient", depthwise_cuda.strips(width), launch.x.dtype
    return (
        "convolution",
        *(depthwise_cuda.strips(width), launch.x.dtype, launch.weight.dtype),
        *(launch.bias is not None, launch.flip, _added(launch)),
    )


def _argument_key(argument) -> tuple:
    if isinstance(argument, Ref):
        return argument.dtype, argument.offset % 16 == 0
    return argument == 1, argument % 16 == 0, -(2**31) <= argument < 2**31


def _added(launch: ConvolutionLaunch) -> str:
    if launch.g is None:
        return "none"
    return "half" if launch.wide is None else "float"


@functools.cache
def _let_triton_keep_kernels() -> None:
    """Give Triton a temporary folder for its kernels where its own cannot be written.

    It would not compile at all there.
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
    name = launch.kernel.__name__
    try:
        kernel = kernel.result() if hasattr(kernel, "result") else kernel
        # inner functions of Triton; another version may have others
        kernel._init_handles()
        types = list(kernel.src.signature.values())
        handle, metadata = kernel.function, kernel.metadata
    except (AttributeError, TypeError) as error:
        raise native.NoDriver(f"this Triton is not known: {error}") from error
    except Exception as error:  # whatever Triton can raise, such as OutOfResources
        raise Unavailable(f"Triton cannot load {name}: {error}") from error
    passed = tuple(kind != "constexpr" for kind in types[: len(launch.arguments)])
    for scratch in ("global_scratch_size", "profile_scratch_size"):
        if getattr(metadata, scratch, 0):
            raise native.NoDriver(f"{name} needs {scratch}, which nobody gives it")
    taken = native.current().parameters(handle)
    # Triton's two scratch pointers come last
    if taken is not None and not sum(passed) <= taken <= sum(passed) + 2:
        raise native.NoDriver(f"{name} takes {taken} arguments, not {sum(passed)}")
    _kept.append(kernel)
    return Function(ctypes.c_void_p(handle), 32 * launch.warps, metadata.shared, passed)


def _compile_cuda(launch, capability) -> depthwise_cuda.Binary:
    try:
        return _compile_convolution(launch, capability)
    except Unavailable as error:
        raise NoConvolution(str(error)) from error


def _compile_convolution(launch, capability) -> depthwise_cuda.Binary:
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
